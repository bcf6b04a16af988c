#include "worker/lab/sweep_command.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/lab/json_line.h"
#include "worker/lab/svg_plot.h"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

Json ResultObject(const SweepResult& result) {
  Json object;
  object["schema"] = "deltapipe.lab.SweepResult";
  object["codec"] = result.codec;
  object["elements"] = result.elements;
  object["payload_bytes"] = result.payload_bytes;
  object["bits_per_element"] = result.bits_per_element;
  object["relative_rms_error"] = FiniteOrNull(result.relative_rms_error);
  object["mean_error"] = FiniteOrNull(result.mean_error);
  object["not_finite"] = result.not_finite;
  object["decoded_not_finite"] = result.decoded_not_finite;
  object["encode_gb_per_s"] = result.encode_gb_per_s;
  object["decode_gb_per_s"] = result.decode_gb_per_s;
  object["is_on_pareto_front"] = result.is_on_pareto_front;
  return object;
}

// The file of --out: one object that says what was measured.
std::string SweepJson(const CodecSweep& sweep,
                      const std::vector<SweepResult>& results) {
  Json object;
  object["schema"] = "deltapipe.lab.Sweep";
  object["input"] = sweep.input_path;
  object["previous"] =
      sweep.previous_path.empty() ? Json(nullptr) : Json(sweep.previous_path);
  object["seed"] = sweep.seed;
  object["results"] = Json::array();
  for (const SweepResult& result : results) {
    object["results"].push_back(ResultObject(result));
  }
  return JsonLine(object);
}

// Rows on the Pareto front begin with a star.
std::string SweepTable(const std::vector<SweepResult>& results) {
  size_t width = 5;
  for (const SweepResult& result : results) {
    width = std::max(width, result.codec.size());
  }
  const int codec_width = static_cast<int>(width);
  std::string table = absl::StrFormat(
      "  %-*s %9s %12s %11s %11s %11s\n", codec_width, "codec", "bits",
      "rel. error", "mean error", "encode GB/s", "decode GB/s");
  for (const SweepResult& result : results) {
    absl::StrAppendFormat(&table, "%s %-*s %9.4g %12.4g %11.3g %11.3g %11.3g\n",
                          result.is_on_pareto_front ? "*" : " ", codec_width,
                          result.codec, result.bits_per_element,
                          result.relative_rms_error, result.mean_error,
                          result.encode_gb_per_s, result.decode_gb_per_s);
  }
  // The same of all codecs.
  if (!results.empty() && results[0].not_finite > 0) {
    absl::StrAppendFormat(&table,
                          "%d of %d values are not finite; errors are of those "
                          "that are finite before and after\n",
                          results[0].not_finite, results[0].elements);
  }
  return table;
}

std::string SweepPlot(const CodecSweep& sweep,
                      const std::vector<SweepResult>& results) {
  ScatterPlot plot;
  plot.title = absl::StrCat(
      "Codecs on ",
      sweep.input_path.substr(sweep.input_path.find_last_of('/') + 1));
  plot.x_label = "bits per element";
  plot.y_label = "relative RMS error";
  for (const SweepResult& result : results) {
    plot.points.push_back({result.codec, result.bits_per_element,
                           result.relative_rms_error,
                           result.is_on_pareto_front});
  }
  return ScatterPlotSvg(plot);
}

}  // namespace

void DeclareSweep(CLI::App& app, SweepCommand* command) {
  CLI::App* sweep = app.add_subcommand(
      "sweep",
      "Try every codec on the float tensors of a file: error against bits");
  sweep->footer(
      "Examples:\n"
      "  deltapipe lab sweep --in x.safetensors --plot x.svg");
  sweep->add_option("--in", command->sweep.input_path, "A safetensors file")
      ->required();
  sweep->add_option(
      "--previous", command->sweep.previous_path,
      "Tensors that both ends have stored: delta(...) is tried, too");
  sweep->add_option("--codecs", command->sweep.codecs,
                    "TEXT ... (default: every codec in a few settings)");
  sweep->add_option("--out", command->table_path,
                    "Where to write the table, as JSON");
  sweep->add_option("--plot", command->plot_path,
                    "Where to write a plot, as SVG");
  sweep->add_option("--seed", command->sweep.seed,
                    "Of stochastic rounding (default 0)");
  sweep->add_flag("--json", command->json, "One JSON object a line");
}

absl::Status RunSweep(const SweepCommand& command, std::ostream& out) {
  DP_ASSIGN_OR_RETURN(const std::vector<SweepResult> results,
                      RunCodecSweep(command.sweep));
  if (command.json) {
    for (const SweepResult& result : results) {
      out << JsonLine(ResultObject(result));
    }
  } else {
    out << SweepTable(results);
  }
  out << std::flush;
  if (!command.table_path.empty()) {
    DP_RETURN_IF_ERROR(WriteFileAtomically(command.table_path,
                                           SweepJson(command.sweep, results)));
  }
  if (!command.plot_path.empty()) {
    DP_RETURN_IF_ERROR(WriteFileAtomically(command.plot_path,
                                           SweepPlot(command.sweep, results)));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
