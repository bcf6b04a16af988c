#include "worker/data/slot_cursors.h"

#include "absl/strings/str_cat.h"

namespace deltapipe {

SlotCursors::SlotCursors(const SlotCursorOptions& options) : options_(options) {
  if (options.may_leave_out && options.comes_again) {
    positions_.resize(static_cast<size_t>(options.num_replicas) *
                      static_cast<size_t>(options.num_microbatches));
  }
}

int64_t SlotCursors::Slot(int64_t step, int replica, int microbatch) const {
  const int64_t turned = options_.may_leave_out
                             ? (microbatch + step) % options_.num_microbatches
                             : microbatch;
  return int64_t{replica} * options_.num_microbatches + turned;
}

int64_t SlotCursors::Position(int64_t step, int64_t slot) const {
  return positions_.empty() ? step : positions_[static_cast<size_t>(slot)];
}

void SlotCursors::Advance(int64_t step, absl::Span<const int> executed) {
  if (positions_.empty()) return;
  for (int replica = 0; replica < options_.num_replicas; ++replica) {
    for (int mb = 0; mb < executed[static_cast<size_t>(replica)]; ++mb) {
      ++positions_[static_cast<size_t>(Slot(step, replica, mb))];
    }
  }
}

absl::Status SlotCursors::Restore(int64_t step,
                                  absl::Span<const int64_t> positions) {
  if (positions_.empty()) return absl::OkStatus();
  if (positions.empty()) {
    positions_.assign(positions_.size(), step);
    return absl::OkStatus();
  }
  if (positions.size() != positions_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cursors of ", positions.size(), " slots, expected ",
                     positions_.size()));
  }
  positions_.assign(positions.begin(), positions.end());
  return absl::OkStatus();
}

}  // namespace deltapipe
