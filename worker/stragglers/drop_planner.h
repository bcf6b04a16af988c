// DropPlanner: the time after which a replica begins no further micro-batch.
//
// Giladi et al., "DropCompute: simple and more robust distributed synchronous
// training via compute variance reduction", NeurIPS 2023, Algorithm 2: from
// measured latencies, the threshold tau with the greatest effective speed-up
//
//   S(tau) = (kept(tau) / planned) * (T + T^c) / (T(tau) + T^c),
//
// kept: micro-batches that are still executed; T: when the slowest replica is
// done; T^c: the rest of the step. Here three things differ:
//
// - A micro-batch that has begun is never interrupted, so T(tau) is the time at
//   which the last kept micro-batch of the slowest replica was done, not
//   min(tau, T).
// - kept, T and T(tau) are summed over the steps before they are divided: S is
//   then the ratio of valid samples per second, which is what a user gets.
// - The search is exhaustive: S changes only at the measured ready times, and
//   each of them is tried.
//
// tau holds for the injection of a micro-batch into stage 0. In a pipeline work
// goes on for a while after that; `drain_seconds` says for how long.
//
// Steps in which anything was cut must not be passed: what would have followed
// is not known (right-censored), and steps that happened to need no cut are
// fast ones. Pure and deterministic; time is O(n log n) in the number of
// micro-batches observed.
//
//   DP_ASSIGN_OR_RETURN(DropPlan plan, PlanDrop(uncut_steps, options));
//   if (plan.speedup > 1.01) policy_tau = plan.tau_seconds;
#ifndef DELTAPIPE_WORKER_STRAGGLERS_DROP_PLANNER_H_
#define DELTAPIPE_WORKER_STRAGGLERS_DROP_PLANNER_H_

#include <limits>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/stragglers/step_observation.h"

namespace deltapipe {

struct DropPlannerOptions {
  /// Of all micro-batches of the steps.
  double max_drop_share = 0.09;
  /// Of the steps, in the mean over the replicas, that may be cut: beyond one
  /// half it is no longer jitter. 1: no limit.
  double max_cut_share = 0.4;
  /// The same of each single replica.
  double max_replica_cut_share = 1;
};

struct DropPlan {
  /// Micro-batch m >= 1 is begun if it is ready at this time or earlier; the
  /// first always is. Lies halfway between two measured times. Infinity: drop
  /// nothing.
  double tau_seconds = std::numeric_limits<double>::infinity();
  /// From a refused injection until the replica is done; the paper's tau is
  /// tau_seconds + drain_seconds.
  double drain_seconds = 0;
  // Predicted, for steps like those measured.
  double drop_share = 0;
  double cut_share = 0;
  /// Valid samples per second over those without dropping.
  double speedup = 1;
  double step_seconds = 0;
  // Measured, means.
  double uncut_step_seconds = 0;
  double rest_seconds = 0;  // T^c
};

/// FAILED_PRECONDITION if there are no steps or a step was cut;
/// INVALID_ARGUMENT if steps differ in their replicas.
absl::StatusOr<DropPlan> PlanDrop(absl::Span<const StepObservation> steps,
                                  const DropPlannerOptions& options = {});

/// What `tau_seconds` would have brought on these steps: the same figures
/// without a search. Errors as PlanDrop.
absl::StatusOr<DropPlan> EvaluateDrop(absl::Span<const StepObservation> steps,
                                      double tau_seconds);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_DROP_PLANNER_H_
