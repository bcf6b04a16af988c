// Recorded or generated latencies against every straggler policy: what each
// would drop, gain and predict.
//
// A recorded tensor [steps, replicas, micro-batches] holds the seconds of each
// micro-batch of plain data parallelism. A replica that is given more
// micro-batches than were recorded repeats those of the step from the first on.
// Latencies injected in addition are of latency_model.h.
#ifndef DELTAPIPE_WORKER_LAB_STRAGGLERS_EXPERIMENT_H_
#define DELTAPIPE_WORKER_LAB_STRAGGLERS_EXPERIMENT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace deltapipe {

struct StragglerExperiment {
  /// Empty: generated from the durations below.
  std::string latencies_path;
  std::string inject;
  /// Of generated latencies; with a recording these four are its own or 1.
  int replicas = 8;
  int microbatches = 12;
  int stages = 1;
  std::string forward = "45ms";
  std::string backward = "135ms";
  /// Of a step besides the micro-batches: gradients, optimizer.
  std::string rest = "0";
  /// 0: 400, or all that were recorded.
  int steps = 0;
  uint64_t seed = 0;
  double max_drop = 0.10;
};

struct StragglerResult {
  /// "none", "detect", "drop", "rebalance", "auto", or "oracle": the best
  /// constant threshold and counts with hindsight.
  std::string policy;
  double microbatches_per_second = 0;  // executed ones alone
  /// Over the policy "none", all steps.
  double speedup = 1;
  double drop_share = 0;
  double step_seconds_p50 = 0;
  double step_seconds_p99 = 0;
  int rebalances = 0;
  /// Steps in which a threshold was enforced. The rest concerns them alone.
  int enforced_steps = 0;
  double predicted_drop_share = 0;
  double realised_drop_share = 0;
  double predicted_speedup = 1;
  double realised_speedup = 1;
  /// The policy's last state, and why; empty for the oracle.
  std::string state;
  std::string why;
};

/// Calls `report` for each policy. INVALID_ARGUMENT or NOT_FOUND, with one
/// sentence, for input that cannot be simulated.
absl::Status RunStragglerExperiment(
    const StragglerExperiment& experiment,
    const std::function<void(const StragglerResult&)>& report);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_STRAGGLERS_EXPERIMENT_H_
