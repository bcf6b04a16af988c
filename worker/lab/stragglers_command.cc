#include "worker/lab/stragglers_command.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "worker/lab/json_line.h"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

std::string ResultJson(const StragglerResult& result) {
  const bool has_prediction = result.enforced_steps > 0;
  const auto if_predicted = [&](double value) {
    return has_prediction ? Json(value) : Json(nullptr);
  };
  Json object;
  object["schema"] = "deltapipe.lab.StragglerResult";
  object["policy"] = result.policy;
  object["speedup"] = result.speedup;
  object["drop_share"] = result.drop_share;
  object["microbatches_per_second"] = result.microbatches_per_second;
  object["step_seconds_p50"] = result.step_seconds_p50;
  object["step_seconds_p99"] = result.step_seconds_p99;
  object["rebalances"] = result.rebalances;
  object["enforced_steps"] = result.enforced_steps;
  object["predicted_drop_share"] = if_predicted(result.predicted_drop_share);
  object["realised_drop_share"] = if_predicted(result.realised_drop_share);
  object["predicted_speedup"] = if_predicted(result.predicted_speedup);
  object["realised_speedup"] = if_predicted(result.realised_speedup);
  object["state"] = result.state.empty() ? Json(nullptr) : Json(result.state);
  object["why"] = result.why.empty() ? Json(nullptr) : Json(result.why);
  return JsonLine(object);
}

// Predicted and realised are of the steps in which a threshold was enforced,
// the rest of all.
std::string TableHead() {
  return absl::StrFormat("%-10s %8s %7s %9s %9s %7s %17s %17s\n", "policy",
                         "speed-up", "dropped", "p50", "p99", "moved",
                         "predicted", "realised");
}

std::string TableRow(const StragglerResult& result) {
  const auto pair = [&](double speedup, double drop) {
    return result.enforced_steps > 0
               ? absl::StrFormat("%.3f, %.2f %%", speedup, 100 * drop)
               : std::string("-");
  };
  return absl::StrFormat(
      "%-10s %8.3f %5.2f %% %7.3f s %7.3f s %7d %17s %17s\n", result.policy,
      result.speedup, 100 * result.drop_share, result.step_seconds_p50,
      result.step_seconds_p99, result.rebalances,
      pair(result.predicted_speedup, result.predicted_drop_share),
      pair(result.realised_speedup, result.realised_drop_share));
}

}  // namespace

void DeclareStragglers(CLI::App& app, StragglerCommand* command) {
  StragglerExperiment& experiment = command->experiment;
  CLI::App* stragglers = app.add_subcommand(
      "stragglers",
      "Try every straggler policy on recorded or generated latencies");
  stragglers->footer(
      "Examples:\n"
      "  deltapipe lab stragglers --inject lognormal:1.0 --replicas 8 "
      "--microbatches 12");
  CLI::Option* latencies = stragglers->add_option(
      "--latencies", experiment.latencies_path,
      "A safetensors file with a tensor [steps, replicas, micro-batches] of "
      "seconds");
  stragglers->add_option("--inject", experiment.inject,
                         "Such as \"lognormal:1.0;slow:rank=3,x=1.5\"; "
                         "input:rank=0,by=20ms reads each micro-batch longer");
  const auto generated = [&](const char* name, auto& value, const char* help) {
    stragglers->add_option(name, value, help)
        ->capture_default_str()
        ->excludes(latencies);
  };
  generated("--replicas", experiment.replicas, "Replicas");
  generated("--microbatches", experiment.microbatches,
            "Micro-batches of a replica and step");
  generated("--stages", experiment.stages, "Stages of a 1F1B pipeline");
  generated("--forward", experiment.forward, "Of a micro-batch and stage");
  generated("--backward", experiment.backward, "Of a micro-batch and stage");
  stragglers
      ->add_option("--rest", experiment.rest,
                   "Of a step besides micro-batches: gradients, optimizer")
      ->capture_default_str();
  stragglers->add_option("--steps", experiment.steps,
                         "How many (default 400, or all recorded)");
  stragglers->add_option("--seed", experiment.seed, "Of --inject (default 0)");
  stragglers
      ->add_option("--max-drop", experiment.max_drop,
                   "Of all micro-batches, over any 100 steps")
      ->capture_default_str();
  stragglers->add_flag("--json", command->json, "One JSON object a line");
}

absl::Status RunStragglers(const StragglerCommand& command, std::ostream& out) {
  bool has_head = command.json;
  return RunStragglerExperiment(
      command.experiment, [&](const StragglerResult& result) {
        if (!has_head) out << TableHead();
        has_head = true;
        out << (command.json ? ResultJson(result) : TableRow(result))
            << std::flush;
      });
}

}  // namespace deltapipe
