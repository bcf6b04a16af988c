// What an optimizer experiment prints.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "worker/lab/json_line.h"
#include "worker/lab/optimizer_experiment.h"

namespace deltapipe {

std::string OptimizerResultText(const OptimizerExperiment& experiment,
                                const OptimizerResult& result) {
  std::string text;
  for (const std::string& decision : result.decisions) {
    absl::StrAppend(&text, decision, "\n");
  }
  absl::StrAppendFormat(
      &text,
      "algorithm=%s codec=%s ranks=%d nodes=%d parameters=%d steps=%d "
      "compressed_steps=%d local_steps=%d skipped_steps=%d "
      "steps_in_output=%d bits_per_parameter=%.4g "
      "node_bytes_per_parameter=%.4g relative_distance=%.4g\n",
      experiment.algorithm, experiment.codec, result.ranks.size(),
      result.node_egress_bytes.size(), result.num_parameters, result.num_steps,
      result.num_compressed_steps, result.num_local_steps,
      result.num_skipped_steps, result.num_steps_in_output,
      result.bits_per_parameter, result.node_bytes_per_parameter,
      result.relative_distance);
  for (size_t rank = 0; rank < result.ranks.size(); ++rank) {
    const RankResult& own = result.ranks[rank];
    absl::StrAppendFormat(
        &text,
        "rank=%d node=%d sent_bytes=%d compressed_sent_bytes=%d "
        "off_node_bytes=%d worker_residual_norm=%.4g "
        "server_residual_norm=%.4g\n",
        rank, own.node, own.sent_bytes, own.compressed_sent_bytes,
        own.off_node_bytes, own.worker_residual_norm, own.server_residual_norm);
  }
  for (size_t node = 0; node < result.node_egress_bytes.size(); ++node) {
    absl::StrAppendFormat(&text, "node=%d egress_bytes=%d\n", node,
                          result.node_egress_bytes[node]);
  }
  if (result.num_steps_in_output < result.num_steps) {
    absl::StrAppendFormat(
        &text,
        "The run ends between two synchronisation points: the weights written "
        "are those after step %d of %d.\n",
        result.num_steps_in_output, result.num_steps);
  }
  return text;
}

std::string OptimizerResultJson(const OptimizerExperiment& experiment,
                                const OptimizerResult& result) {
  using Json = nlohmann::ordered_json;
  Json object;
  object["schema"] = "deltapipe.lab.OptimizerResult";
  object["algorithm"] = experiment.algorithm;
  object["codec"] = experiment.codec;
  object["num_ranks"] = result.ranks.size();
  object["num_nodes"] = result.node_egress_bytes.size();
  object["parameters"] = result.num_parameters;
  object["steps"] = result.num_steps;
  object["compressed_steps"] = result.num_compressed_steps;
  object["local_steps"] = result.num_local_steps;
  object["skipped_steps"] = result.num_skipped_steps;
  object["steps_in_output"] = result.num_steps_in_output;
  object["bits_per_parameter"] = result.bits_per_parameter;
  object["node_bytes_per_parameter"] = result.node_bytes_per_parameter;
  object["relative_distance"] = FiniteOrNull(result.relative_distance);
  object["ranks"] = Json::array();
  for (size_t rank = 0; rank < result.ranks.size(); ++rank) {
    const RankResult& own = result.ranks[rank];
    Json entry;
    entry["rank"] = rank;
    entry["node"] = own.node;
    entry["sent_bytes"] = own.sent_bytes;
    entry["compressed_sent_bytes"] = own.compressed_sent_bytes;
    entry["off_node_bytes"] = own.off_node_bytes;
    entry["worker_residual_norm"] = FiniteOrNull(own.worker_residual_norm);
    entry["server_residual_norm"] = FiniteOrNull(own.server_residual_norm);
    object["ranks"].push_back(std::move(entry));
  }
  object["nodes"] = Json::array();
  for (size_t node = 0; node < result.node_egress_bytes.size(); ++node) {
    Json entry;
    entry["node"] = node;
    entry["egress_bytes"] = result.node_egress_bytes[node];
    object["nodes"].push_back(std::move(entry));
  }
  object["decisions"] = result.decisions;
  return JsonLine(object);
}

}  // namespace deltapipe
