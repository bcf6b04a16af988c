// SlotCursors: which micro-batches the slots of a step draw, where replicas may
// have different numbers of them or leave some out.
//
// A step has num_microbatches slots a replica. Without a policy that leaves
// work out, micro-batch m of replica r is slot r * num_microbatches + m, and
// slots draw their step's micro-batch: a function of the step alone. A replica
// that has fewer micro-batches than that gives away the last of its slots, and
// those that have more take them, in order: whose slots are whose is a function
// of the numbers, each slot has one owner, and few samples change theirs.
//
// Where work may be left out, the last micro-batches of a replica are; so that
// this does not always hit the same slots, whose samples would be seen less
// often, the slots of a replica change their places from step to step. And
// where left-out work comes again, a slot draws what it has not done yet.
//
// Every worker knows what all replicas did and keeps all cursors. One thread.
#ifndef DELTAPIPE_WORKER_DATA_SLOT_CURSORS_H_
#define DELTAPIPE_WORKER_DATA_SLOT_CURSORS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace deltapipe {

struct SlotCursorOptions {
  int num_replicas = 1;
  int num_microbatches = 1;  // of a replica, on average
  bool may_leave_out = false;
  bool comes_again = false;  // what was left out
};

class SlotCursors {
 public:
  explicit SlotCursors(const SlotCursorOptions& options);

  /// From here on replica r has counts[r] micro-batches a step, 1 or more; they
  /// add up to num_replicas * num_microbatches. INVALID_ARGUMENT leaves all as
  /// it was.
  absl::Status SetCounts(absl::Span<const int> counts);

  /// The slot of a replica's micro-batch.
  int64_t Slot(int64_t step, int replica, int microbatch) const;
  /// What it draws: for BatchSource::Train, in place of the step.
  int64_t Position(int64_t step, int64_t slot) const;
  /// After `step`, of which replica r did the first executed[r].
  void Advance(int64_t step, absl::Span<const int> executed);

  /// By slot; empty if positions are steps.
  const std::vector<int64_t>& positions() const { return positions_; }
  /// Goes on before `step`. INVALID_ARGUMENT for another number of slots;
  /// empty: nothing was left out so far.
  absl::Status Restore(int64_t step, absl::Span<const int64_t> positions);

 private:
  SlotCursorOptions options_;
  std::vector<std::vector<int64_t>> slots_;  // by replica
  std::vector<int64_t> positions_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_DATA_SLOT_CURSORS_H_
