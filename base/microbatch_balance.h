// How many micro-batches of a step each replica gets, when replicas differ in
// speed for long: those counts that minimise the time of the last to finish.
//
// Replica r finishes after fixed_seconds[r] + count[r] * seconds[r]; a pipeline
// of P stages has fixed seconds (filling and draining it), plain data
// parallelism has none. Used by the coordinator, which assigns the counts, and
// by workers, which advise it. Pure, deterministic, thread-safe.
//
//   DP_ASSIGN_OR_RETURN(Balance balance, BalanceMicrobatches(costs, 128));
#ifndef DELTAPIPE_BASE_MICROBATCH_BALANCE_H_
#define DELTAPIPE_BASE_MICROBATCH_BALANCE_H_

#include <climits>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace deltapipe {

struct ReplicaCost {
  double seconds_per_microbatch = 0;  // > 0
  double fixed_seconds = 0;           // >= 0, per step
};

struct Balance {
  /// At least 1 each; they add up to the total.
  std::vector<int> counts;
  /// Of the last to finish.
  double finish_seconds = 0;
};

/// When the last replica finishes with these counts.
double FinishSeconds(absl::Span<const ReplicaCost> costs,
                     absl::Span<const int> counts);

/// The counts with the smallest FinishSeconds: each micro-batch in turn goes
/// where it ends first, which is optimal, because finish times only grow; among
/// equals to the lowest replica. No replica gets more than `max_each`.
/// INVALID_ARGUMENT if a cost is not finite or out of range, total < replicas
/// or total > replicas * max_each. O(total * log(replicas)).
absl::StatusOr<Balance> BalanceMicrobatches(absl::Span<const ReplicaCost> costs,
                                            int total, int max_each = INT_MAX);

struct RebalanceOptions {
  /// Of a step, besides the micro-batches: gradients, optimizer.
  double rest_seconds = 0;
  /// Change only if a step becomes shorter by this factor minus 1 at least.
  double min_gain = 0.03;
};

struct Rebalance {
  /// The new counts, or the current ones where the gain is too small.
  std::vector<int> counts;
  /// Step time with the current counts over that with the best, minus 1.
  double gain = 0;
  bool is_change = false;
};

/// Whether to move micro-batches, given those that each replica has now.
/// Errors as BalanceMicrobatches; counts and costs are of one length.
absl::StatusOr<Rebalance> RebalanceMicrobatches(
    absl::Span<const ReplicaCost> costs, absl::Span<const int> current,
    const RebalanceOptions& options = {});

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_MICROBATCH_BALANCE_H_
