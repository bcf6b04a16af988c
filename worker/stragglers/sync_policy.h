// SyncPolicy: what a replica does about replicas that are late: whether stage 0
// injects one more micro-batch, and whether micro-batches should be moved.
//
// Stage 0 of each replica has one. Per step it calls BeginStep, then Admit
// before each injection, in order: at the first refusal of micro-batch m it
// sends END(m) down the pipeline, and no later micro-batch of the step is run.
// Some time after the step, when the observations of all replicas have been
// exchanged, it calls EndStep; that may be a few steps later, but equally many
// on every replica. Because all replicas make the same calls with the same
// observations, they agree on threshold, state and advice without a message.
//
// What holds for every policy, whatever the replicas' timing:
//
// - a step that is done again after a recovery executes what it did before
//   (`replay`); else
// - the first micro-batch of a replica is always admitted, so that no step is
//   empty;
// - over any 100 steps at most max_drop_share is dropped (drop_budget.h);
// - a replica that was cut in more than half of the last 50 observed steps is
//   named in advice().
//
// One thread at a time: that of stage 0's computation. Never waits, never reads
// a clock.
//
//   DP_ASSIGN_OR_RETURN(auto policy, MakeSyncPolicy("auto", options));
//   DP_RETURN_IF_ERROR(policy->BeginStep({step, bucket, revision, planned}));
//   while (m < planned[rank] && policy->Admit(m, SecondsSinceBegin())) ++m;
//   DP_RETURN_IF_ERROR(policy->EndStep(observations));
#ifndef DELTAPIPE_WORKER_STRAGGLERS_SYNC_POLICY_H_
#define DELTAPIPE_WORKER_STRAGGLERS_SYNC_POLICY_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/stragglers/step_observation.h"

namespace deltapipe {

/// What was executed in a step that is done again.
struct ReplayedStep {
  int64_t step = 0;
  std::vector<int> executed;  // by rank
};

struct SyncPolicyOptions {
  int rank = 0;  // this replica
  /// Of all micro-batches, over any 100 steps; (0, 1].
  double max_drop_share = 0.10;
  /// Whole steps that a decision needs; 40 or more.
  int measured_steps = 40;
  /// A decision is made anew after so many steps; more than measured_steps.
  int retune_steps = 200;
  /// "drop": on injection, instead of one that is found by measuring; 0: none.
  double tau_seconds = 0;
  /// "rebalance", "auto": no replica is advised to have more; 0: no limit.
  int max_microbatches = 0;
  std::vector<ReplayedStep> replay;
};

struct StepStart {
  int64_t step = 0;
  /// See StepObservation.
  int64_t bucket = 0;
  /// Anything that changes what steps cost (plan, codecs) comes with another
  /// revision: what was measured before is forgotten.
  uint64_t plan_revision = 0;
  /// Micro-batches of each replica in this step, by rank.
  std::vector<int> planned;
};

enum class StragglerState {
  kOff,          // nothing to do, or nothing may be done
  kMeasuring,    // whole steps are being collected
  kDropping,     // micro-batches are refused after tau
  kRebalancing,  // advised; waits for other counts
};
absl::string_view StragglerStateName(StragglerState state);

/// For export, of the bucket of the last step. Predicted and realised figures
/// are of the steps in which tau was enforced; NaN where there are none yet.
struct StragglerGauges {
  StragglerState state = StragglerState::kOff;
  /// A sentence: why this state.
  std::string why;
  /// In the step in progress: not a whole step for measuring, nor a replay.
  bool is_tau_enforced = false;
  /// On injection; infinity: none. With the drain added: the paper's tau.
  double tau_seconds = std::numeric_limits<double>::infinity();
  double drain_seconds = 0;
  double predicted_drop_share = 0;
  double realised_drop_share = std::numeric_limits<double>::quiet_NaN();
  double predicted_speedup = 1;
  double realised_speedup = std::numeric_limits<double>::quiet_NaN();
  int64_t num_dropped = 0;  // by all replicas since the policy was made
  int64_t num_decisions = 0;
  /// Decisions forced because prediction and reality parted.
  int64_t num_mispredictions = 0;
};

struct RebalanceAdvice {
  bool is_advised = false;
  /// The replica that calls for it.
  int rank = -1;
  /// Micro-batches per replica; empty: it is slow for long or cut too often,
  /// but no other counts are known to be better.
  std::vector<int> counts;
  std::string why;
};

class SyncPolicy {
 public:
  virtual ~SyncPolicy() = default;
  virtual absl::string_view name() const = 0;
  /// INVALID_ARGUMENT if `planned` has no entry for this rank or one below 1,
  /// or a replay has another number of replicas.
  virtual absl::Status BeginStep(const StepStart& start) = 0;
  /// Whether to inject `microbatch` at `elapsed_seconds` after the step began.
  /// Once refused, all later ones of the step are.
  virtual bool Admit(int microbatch, double elapsed_seconds) = 0;
  /// All replicas' observations of a step that was begun, in the order of the
  /// steps. INVALID_ARGUMENT if it was not begun, or replicas or their planned
  /// micro-batches are not those of BeginStep.
  virtual absl::Status EndStep(const StepObservation& observation) = 0;
  virtual const RebalanceAdvice& advice() const = 0;
  virtual StragglerGauges gauges() const = 0;
};

/// "none" and "detect" (which the coordinator does): nothing is dropped or
/// advised. "drop", "rebalance", "auto". INVALID_ARGUMENT names what is wrong
/// with name or options.
absl::StatusOr<std::unique_ptr<SyncPolicy>> MakeSyncPolicy(
    absl::string_view name, const SyncPolicyOptions& options);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_SYNC_POLICY_H_
