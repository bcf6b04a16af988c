// StepSimulator: a data-parallel or 1F1B job with injected or recorded
// latencies and a straggler policy in the loop, on simulated time.
//
// Every replica has its own SyncPolicy, as on a real job, and gets all
// observations one step late; a run in which two of them disagree fails. With
// one stage a micro-batch is one piece of work. With more, each stage runs
// plain 1F1B, transfers take no time, and stage 0 cuts by injecting no more:
// what is in flight drains. A step ends `rest_seconds` after the last replica.
// Advised counts hold from the next step on. Deterministic.
//
//   SimulatedJob job = {8, 1, 12, 0.5, seconds};
//   DP_ASSIGN_OR_RETURN(SimulatedRun run, SimulatePolicy(job, "drop", {},
//   400)); run.samples_per_second() ...
#ifndef DELTAPIPE_WORKER_STRAGGLERS_STEP_SIMULATOR_H_
#define DELTAPIPE_WORKER_STRAGGLERS_STEP_SIMULATOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/stragglers/step_observation.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {

struct SimulatedJob {
  int num_replicas = 1;
  int num_stages = 1;
  /// Of each replica, before any are moved.
  int num_microbatches = 1;
  double rest_seconds = 0;
  /// How long a piece of work takes: part 0 is the micro-batch where there is
  /// one stage, else 2 * stage is its forward pass, 2 * stage + 1 its backward
  /// pass.
  std::function<double(int replica, int64_t step, int microbatch, int part)>
      seconds;
  /// For which the first stage reads the samples of all planned micro-batches
  /// as a step begins; null: it takes no time.
  std::function<double(int replica, int64_t step, int planned)> read_seconds =
      nullptr;
};

/// A step of the simulated job.
struct SimulatedStep {
  double seconds = 0;
  /// Had nothing been cut.
  double uncut_seconds = 0;
  std::vector<int> planned;   // by replica
  std::vector<int> executed;  // by replica
  /// tau was enforced; then the policy's prediction too.
  bool is_tau_enforced = false;
  double predicted_drop_share = 0;
  double predicted_speedup = 1;
  /// After the step.
  bool is_rebalance_advised = false;
};

struct SimulatedRun {
  std::vector<SimulatedStep> steps;
  StragglerGauges gauges;  // at the end
  int num_rebalances = 0;

  // The rest concerns steps [first_step, end), counting from 0.

  /// Micro-batches executed per second: valid work alone.
  double ExecutedPerSecond(size_t first_step = 0) const;
  double DropShare(size_t first_step = 0) const;
  /// The q-quantile of the step times, 0 <= q <= 1, nearest rank.
  double StepSecondsQuantile(double q, size_t first_step = 0) const;
};

/// Predicted beside realised, over the steps in which tau was enforced. The
/// realised speed-up compares with the same steps had nothing been cut.
struct PredictionCheck {
  int num_steps = 0;
  double predicted_drop_share = 0;
  double realised_drop_share = 0;
  double predicted_speedup = 1;
  double realised_speedup = 1;
};
PredictionCheck CheckPrediction(const SimulatedRun& run);

/// One replica's step on its own: `admit` is asked before each injection with
/// the micro-batch and the seconds since the step began.
ReplicaObservation SimulateReplica(
    const SimulatedJob& job, int64_t step, int replica, int planned,
    const std::function<bool(int, double)>& admit);

/// Errors of MakeSyncPolicy; INVALID_ARGUMENT if the job has no replica, stage,
/// micro-batch or step; INTERNAL if replicas disagree.
absl::StatusOr<SimulatedRun> SimulatePolicy(const SimulatedJob& job,
                                            absl::string_view policy,
                                            const SyncPolicyOptions& options,
                                            int num_steps);

/// With hindsight: the best of a constant threshold that drops at most
/// `max_drop_share`, counts balanced by the replicas' median speeds, and both.
absl::StatusOr<SimulatedRun> SimulateOracle(const SimulatedJob& job,
                                            double max_drop_share,
                                            int num_steps);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_STEP_SIMULATOR_H_
