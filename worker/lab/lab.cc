#include "worker/lab/lab.h"

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/version.h"
#include "compression/codec_registry.h"
#include "nlohmann/json.hpp"
#include "worker/lab/codec_experiment.h"
#include "worker/lab/json_line.h"
#include "worker/lab/optimizer_experiment.h"
#include "worker/lab/stragglers_command.h"
#include "worker/lab/sweep_command.h"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kBadUsage = 2;

std::string ResultJson(const TensorResult& result) {
  Json object;
  object["schema"] = "deltapipe.lab.CodecResult";
  object["tensor"] = result.tensor;
  object["elements"] = result.elements;
  object["payload_bytes"] = result.payload_bytes;
  object["bits_per_element"] = result.bits_per_element;
  object["relative_rms_error"] = FiniteOrNull(result.relative_rms_error);
  object["mean_error"] = FiniteOrNull(result.mean_error);
  object["encode_gb_per_s"] = result.encode_gb_per_s;
  object["decode_gb_per_s"] = result.decode_gb_per_s;
  object["not_finite"] = result.not_finite;
  object["decoded_not_finite"] = result.decoded_not_finite;
  if (result.error_bound.has_value()) {
    object["bound"] = result.error_bound->bound;
    object["largest_error"] = result.error_bound->max_error;
    object["mean_square_error"] = result.error_bound->mean_square_error;
  }
  return JsonLine(object);
}

std::string ResultText(const TensorResult& result) {
  std::string text = absl::StrFormat(
      "tensor=%s elements=%d payload_bytes=%d bits_per_element=%.4g "
      "relative_rms_error=%.4g mean_error=%.3g encode_gb_per_s=%.3g "
      "decode_gb_per_s=%.3g not_finite=%d decoded_not_finite=%d",
      result.tensor, result.elements, result.payload_bytes,
      result.bits_per_element, result.relative_rms_error, result.mean_error,
      result.encode_gb_per_s, result.decode_gb_per_s, result.not_finite,
      result.decoded_not_finite);
  if (result.error_bound.has_value()) {
    absl::StrAppendFormat(
        &text, " bound=%.4g largest_error=%.4g mean_square_error=%.4g",
        result.error_bound->bound, result.error_bound->max_error,
        result.error_bound->mean_square_error);
  }
  return text + "\n";
}

std::string KindName(CodecParameter::Kind kind) {
  switch (kind) {
    case CodecParameter::Kind::kInteger:
      return "integer";
    case CodecParameter::Kind::kNumber:
      return "number";
    case CodecParameter::Kind::kChoice:
      return "choice";
    case CodecParameter::Kind::kCodec:
      return "codec";
  }
  return "";
}

std::string CodecJson(const CodecInfo& info) {
  Json object;
  object["schema"] = "deltapipe.lab.Codec";
  object["codec"] = std::string(info.name);
  object["kind"] = info.is_wrapper() ? "wrapper" : "codec";
  object["summary"] = std::string(info.summary);
  object["paper"] = std::string(info.source);
  object["parameters"] = Json::array();
  for (const CodecParameter& parameter : info.parameters) {
    Json entry;
    entry["name"] = std::string(parameter.name);
    entry["kind"] = KindName(parameter.kind);
    entry["range"] = CodecParameterRange(parameter);
    if (parameter.kind == CodecParameter::Kind::kInteger) {
      entry["min"] = parameter.min;
      entry["max"] = parameter.max;
      entry["multiple_of"] = parameter.multiple_of;
    }
    if (parameter.kind == CodecParameter::Kind::kNumber) {
      entry["above"] = parameter.low;
      entry["below"] = parameter.high;
    }
    entry["default"] = parameter.default_text.empty()
                           ? Json(nullptr)
                           : Json(std::string(parameter.default_text));
    entry["summary"] = std::string(parameter.summary);
    object["parameters"].push_back(std::move(entry));
  }
  return JsonLine(object);
}

std::string CodecText(const CodecInfo& info) {
  std::string text = absl::StrCat(info.name, ": ", info.summary, "\n");
  for (const CodecParameter& parameter : info.parameters) {
    absl::StrAppend(
        &text, "  ", parameter.name, " = ", CodecParameterRange(parameter),
        parameter.default_text.empty()
            ? " (required)"
            : absl::StrCat(" (default ", parameter.default_text, ")"),
        ": ", parameter.summary, "\n");
  }
  absl::StrAppend(&text, "  from: ", info.source, "\n");
  return text;
}

struct Flags {
  CodecExperiment experiment;
  OptimizerExperiment optimizer;
  bool json = false;
  StragglerCommand stragglers;
  SweepCommand sweep;
};

void DeclareOptimizer(CLI::App& app, Flags& flags) {
  OptimizerExperiment& experiment = flags.optimizer;
  CLI::App* optimizer = app.add_subcommand(
      "optimizer",
      "Run an optimizer on recorded gradients, with and without compression");
  optimizer->footer(
      "Examples:\n"
      "  deltapipe lab optimizer --algorithm onebit_lamb --gradients "
      "g.safetensors \\\n"
      "      --parameters w.safetensors --ranks 4 --out trained.safetensors");
  optimizer
      ->add_option("--algorithm", experiment.algorithm,
                   "The optimizer, as train.optimizer.kind in a job spec")
      ->required();
  optimizer
      ->add_option("--gradients", experiment.gradients_path,
                   "For each parameter a tensor [steps, ranks, ...shape], fp32")
      ->required();
  optimizer
      ->add_option("--parameters", experiment.parameters_path,
                   "The weights at the start, fp32")
      ->required();
  optimizer->add_option("--ranks", experiment.ranks, "How many ranks G has")
      ->required();
  optimizer
      ->add_option("--nodes", experiment.nodes,
                   "Nodes that the ranks share (default: one each)")
      ->check(CLI::PositiveNumber);
  optimizer->add_option("--node-codec", experiment.node_codec,
                        "Of sums inside a node: none or cast(bf16) (default "
                        "none)");
  optimizer->add_option("--set", experiment.settings,
                        "field=value ... of train.optimizer, such as "
                        "compress_after_step=100");
  optimizer->add_option("--codec", experiment.codec,
                        "Of compressed steps (default \"sign(block=0)\")");
  optimizer->add_option("--clip-norm", experiment.clip_norm,
                        "The largest norm of a mean gradient (default: none)");
  optimizer
      ->add_option("--out", experiment.output_path,
                   "Where to write the weights after the last step")
      ->required();
  optimizer->add_flag("--json", flags.json, "One JSON object");
}

void DeclareCommands(CLI::App& app, Flags& flags) {
  app.require_subcommand(1);
  app.set_version_flag("--version", kVersion);
  CLI::App* codec = app.add_subcommand(
      "codec",
      "Encode and decode every float tensor of a file; one line a tensor");
  codec->footer(
      "Examples:\n"
      "  deltapipe lab codec --codec \"int(4)\" --in x.safetensors --out "
      "y.safetensors");
  codec
      ->add_option("--codec", flags.experiment.codec,
                   "The codec, such as \"int(4,block=64)\" or "
                   "\"delta(int(4))\"; `codecs` lists them")
      ->required();
  codec->add_option("--in", flags.experiment.input_path, "A safetensors file")
      ->required();
  codec->add_option("--out", flags.experiment.output_path,
                    "Where to write the decoded tensors, in fp32");
  codec->add_option("--previous", flags.experiment.previous_path,
                    "For delta(...): the tensors that both ends have stored");
  codec->add_option("--seed", flags.experiment.seed,
                    "Of stochastic rounding (default 0)");
  codec->add_flag("--json", flags.json, "One JSON object a line");
  CLI::App* codecs = app.add_subcommand(
      "codecs", "List all codecs with parameters, ranges, defaults, papers");
  codecs->footer(
      "Examples:\n"
      "  deltapipe lab codecs\n"
      "  deltapipe lab codecs --json | jq -r .codec");
  codecs->add_flag("--json", flags.json, "One JSON object a line");
  DeclareSweep(app, &flags.sweep);
  DeclareOptimizer(app, flags);
  DeclareStragglers(app, &flags.stragglers);
}

std::string OneLine(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

absl::Status RunCodec(const Flags& flags, std::ostream& out) {
  return RunCodecExperiment(flags.experiment, [&](const TensorResult& result) {
    out << (flags.json ? ResultJson(result) : ResultText(result)) << std::flush;
  });
}

absl::Status RunOptimizer(const Flags& flags, std::ostream& out) {
  const auto result = RunOptimizerExperiment(flags.optimizer);
  if (!result.ok()) return result.status();
  out << (flags.json ? OptimizerResultJson(flags.optimizer, *result)
                     : OptimizerResultText(flags.optimizer, *result));
  return absl::OkStatus();
}

}  // namespace

int RunLab(int argc, const char* const* argv, std::ostream& out,
           std::ostream& err) {
  Flags flags;
  CLI::App app("Tries codecs, optimizers and straggler policies on files",
               "deltapipe-lab");
  DeclareCommands(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help, out, err);
  } catch (const CLI::ParseError& error) {
    err << "deltapipe-lab: " << OneLine(error.what()) << "; see --help\n";
    return kBadUsage;
  }
  if (app.got_subcommand("codecs")) {
    for (const CodecInfo& info : AllCodecs()) {
      out << (flags.json ? CodecJson(info) : CodecText(info));
    }
    return 0;
  }
  const absl::Status status =
      app.got_subcommand("stragglers")  ? RunStragglers(flags.stragglers, out)
      : app.got_subcommand("sweep")     ? RunSweep(flags.sweep, out)
      : app.got_subcommand("optimizer") ? RunOptimizer(flags, out)
                                        : RunCodec(flags, out);
  if (status.ok()) return 0;
  err << "deltapipe-lab: " << OneLine(std::string(status.message())) << "\n";
  return kBadUsage;
}

}  // namespace deltapipe
