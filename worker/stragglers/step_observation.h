// What the replicas of a job did in one step: the input of every straggler
// rule, and what stage 0 of each replica tells the others once a step.
//
// Times are seconds on the steady clock of the replica's stage 0, since the
// step began there. The engine takes each one once and uses it for both
// purposes: `ready` is what it passes to SyncPolicy::Admit, so that what is
// measured is what is enforced. All replicas feed the same observations in the
// same order to their policies and therefore decide alike; nothing else is
// exchanged. Plain data, thread-compatible.
#ifndef DELTAPIPE_WORKER_STRAGGLERS_STEP_OBSERVATION_H_
#define DELTAPIPE_WORKER_STRAGGLERS_STEP_OBSERVATION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace deltapipe {

struct ReplicaObservation {
  /// Micro-batches it was to run, and those it ran: the k of END(k).
  int planned = 0;
  int executed = 0;
  /// [m]: when stage 0 could inject micro-batch m. One entry for each that was
  /// executed and, in a cut step, one for the first that was not.
  std::vector<double> ready_seconds;
  /// [m]: when stage 0 had ended the backward pass of micro-batch m: the
  /// replica's work would have been done then, had m been its last.
  std::vector<double> done_seconds;
  /// Until stage 0 could begin the next step.
  double step_seconds = 0;

  bool is_cut() const { return executed < planned; }
  /// Seconds per micro-batch once the pipeline is full; needs executed >= 1.
  double PaceSeconds() const;
  /// When `count` micro-batches would have been done: measured where there were
  /// so many, else continued at PaceSeconds. Needs executed >= 1.
  double FinishSeconds(int count) const;
};

struct StepObservation {
  int64_t step = 0;
  /// Shapes whose steps cost the same; each has its own threshold.
  int64_t bucket = 0;
  std::vector<ReplicaObservation> replicas;  // by rank

  int num_planned() const;
  int num_executed() const;
  bool is_uncut() const { return num_executed() == num_planned(); }
  /// Mean over the replicas, whose steps all end with the same collective.
  double StepSeconds() const;
};

/// Doubles that a replica sends once a step, if no replica ever runs more than
/// `max_microbatches`.
constexpr size_t ObservationDoubles(int max_microbatches) {
  return 3 + 2 * static_cast<size_t>(max_microbatches);
}

/// Fills `out` with planned, executed, step seconds, the ready and the done
/// times; what is not known is 0. `out` has ObservationDoubles(max) elements
/// with max >= planned.
void EncodeObservation(const ReplicaObservation& observation,
                       absl::Span<double> out);

/// INVALID_ARGUMENT if the counts are no counts or do not fit, a time is
/// negative or not finite, or a later one is smaller.
absl::StatusOr<ReplicaObservation> DecodeObservation(
    absl::Span<const double> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_STEP_OBSERVATION_H_
