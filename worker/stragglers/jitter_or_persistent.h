// Tells what a slow step is due to: jitter, against which work can be dropped,
// or replicas that are slow for long, against which micro-batches are moved.
//
// A replica differs for long if, in every quarter of the observed steps, its
// seconds per micro-batch (the median of the quarter) are 10 % above the median
// of all replicas, or 10 % below: persistence and a shift in the mean together
// are what keeps false alarms away (Wu et al., "Falcon", 2024). Its work is
// moved where that pays, because then nothing is lost; else dropping is
// considered; else nothing is done. What pays is computed on the observed steps
// themselves.
//
// Pure and deterministic: every replica comes to the same verdict.
#ifndef DELTAPIPE_WORKER_STRAGGLERS_JITTER_OR_PERSISTENT_H_
#define DELTAPIPE_WORKER_STRAGGLERS_JITTER_OR_PERSISTENT_H_

#include <climits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/stragglers/drop_planner.h"
#include "worker/stragglers/step_observation.h"

namespace deltapipe {

struct SlownessOptions {
  DropPlannerOptions planner;
  bool may_drop = true;
  bool may_rebalance = true;
  /// Below these speed-ups minus 1 a remedy is not worth its change.
  double min_drop_gain = 0.01;
  double min_rebalance_gain = 0.03;
  double min_shift = 0.10;
  /// With may_rebalance: a replica that would be cut more often is not dropped
  /// from, although its shift is small; the same samples would always be lost.
  double max_replica_cut_share = 0.6;
  /// Of one replica, when micro-batches are moved.
  int max_microbatches = INT_MAX;
};

enum class Remedy { kNone, kDrop, kRebalance };

struct SlownessVerdict {
  Remedy remedy = Remedy::kNone;
  /// A sentence for the user.
  std::string why;
  /// The replica that differs most for long; -1: none.
  int replica = -1;
  /// The micro-batches per replica that would finish first, and by how much
  /// steps would then be shorter, minus 1. As now if none differs for long and
  /// they are even.
  std::vector<int> counts;
  double rebalance_gain = 0;
  DropPlan drop;
};

/// `steps` are whole (nothing was cut) and have the same planned counts; 20 or
/// more. Errors as PlanDrop; FAILED_PRECONDITION if there are fewer than 4.
absl::StatusOr<SlownessVerdict> JitterOrPersistent(
    absl::Span<const StepObservation> steps,
    const SlownessOptions& options = {});

/// Step time over the step time with `counts`, on the same steps.
double RebalanceSpeedup(absl::Span<const StepObservation> steps,
                        absl::Span<const int> counts);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_JITTER_OR_PERSISTENT_H_
