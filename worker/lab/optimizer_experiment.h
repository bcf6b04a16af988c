// One optimizer over recorded gradients: n ranks in one process, each with its
// own optimizer and gradient synchronisation over loopback, do what n replicas
// of a job do, and the same again without compression.
//
// Gradients are those of the file whatever the weights become, which makes runs
// comparable, not trainings. A step whose mean gradient is not finite is
// skipped on all ranks. Clipping is by the norm of the mean gradient (in
// compressed steps the reconstructed one, in local steps of 0/1 Adam the rank's
// own; a job estimates it from the replicas' own norms while it compresses, see
// worker/engine/gradient_norm.h). Weight decay applies to tensors of two or
// more dimensions.
#ifndef DELTAPIPE_WORKER_LAB_OPTIMIZER_EXPERIMENT_H_
#define DELTAPIPE_WORKER_LAB_OPTIMIZER_EXPERIMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deltapipe {

struct OptimizerExperiment {
  std::string algorithm;  // train.optimizer.kind
  /// For each tensor of the parameters one of its name, fp32 [steps, ranks,
  /// ...shape].
  std::string gradients_path;
  /// Named fp32 tensors: the weights at the start.
  std::string parameters_path;
  int ranks = 1;
  /// 0: every rank a node of its own. Rank r is on node r / (ranks / nodes).
  int nodes = 0;
  /// "field=value", the fields of train.optimizer.
  std::vector<std::string> settings;
  std::string codec = "sign(block=0)";
  /// How gradients are summed inside a node: "none" or "cast(bf16)".
  std::string node_codec = "none";
  double clip_norm = 0;  // 0: no clipping
  std::string output_path;
};

struct RankResult {
  int node = 0;
  int64_t sent_bytes = 0;             // payload, without frame headers
  int64_t compressed_sent_bytes = 0;  // the part of it in compressed steps
  int64_t off_node_bytes = 0;         // the part of sent_bytes to other nodes
  int64_t compressed_off_node_bytes = 0;
  double worker_residual_norm = 0;
  double server_residual_norm = 0;
};

struct OptimizerResult {
  int64_t num_parameters = 0;
  int64_t num_steps = 0;
  int64_t num_compressed_steps = 0;
  int64_t num_local_steps = 0;  // nothing travelled
  int64_t num_skipped_steps = 0;
  /// The weights written are those after this many steps: num_steps, unless the
  /// run ends between two synchronisation points of 0/1 Adam. Then it is the
  /// last such point, as replicas have no common weights after it.
  int64_t num_steps_in_output = 0;
  /// Sent by the rank that sent most, per parameter and compressed step; what
  /// stays inside its node counts. 0 without such steps.
  double bits_per_parameter = 0;
  /// Out of the node that sent most, per parameter and compressed step.
  double node_bytes_per_parameter = 0;
  /// ||w - w_u|| / ||w_u||, w_u being the weights of the same run with the
  /// compressor replaced by identity. 0 for optimizers that do not compress.
  double relative_distance = 0;
  std::vector<RankResult> ranks;
  std::vector<int64_t> node_egress_bytes;  // [node]
  /// compress_after_step=auto: what decided, and when.
  std::vector<std::string> decisions;
};

/// Runs the experiment and writes the weights. INVALID_ARGUMENT names the
/// field or tensor, with what was expected; DATA_LOSS if ranks end with
/// different weights; errors of the files.
absl::StatusOr<OptimizerResult> RunOptimizerExperiment(
    const OptimizerExperiment& experiment);

/// The result for a person, a line each for the run, each rank and each node.
std::string OptimizerResultText(const OptimizerExperiment& experiment,
                                const OptimizerResult& result);
/// One line of JSON with "schema": "deltapipe.lab.OptimizerResult".
std::string OptimizerResultJson(const OptimizerExperiment& experiment,
                                const OptimizerResult& result);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_OPTIMIZER_EXPERIMENT_H_
