#include "worker/data/slot_cursors.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace deltapipe {

SlotCursors::SlotCursors(const SlotCursorOptions& options) : options_(options) {
  const std::vector<int> even(static_cast<size_t>(options.num_replicas),
                              options.num_microbatches);
  SetCounts(even).IgnoreError();  // these are valid
  if (options.may_leave_out && options.comes_again) {
    positions_.resize(static_cast<size_t>(options.num_replicas) *
                      static_cast<size_t>(options.num_microbatches));
  }
}

absl::Status SlotCursors::SetCounts(absl::Span<const int> counts) {
  const int64_t num_slots =
      int64_t{options_.num_replicas} * options_.num_microbatches;
  int64_t total = 0;
  bool has_none = false;  // a replica
  for (const int count : counts) {
    has_none |= count < 1;
    total += count;
  }
  if (counts.size() != static_cast<size_t>(options_.num_replicas) || has_none ||
      total != num_slots) {
    return absl::InvalidArgumentError(absl::StrCat(
        "micro-batches by replica: expected ", options_.num_replicas,
        " numbers of 1 or more with the sum ", num_slots, ", got ",
        absl::StrJoin(counts, ", ")));
  }
  slots_.assign(counts.size(), {});
  std::vector<int64_t> given_away;
  for (size_t replica = 0; replica < counts.size(); ++replica) {
    const int64_t first =
        static_cast<int64_t>(replica) * options_.num_microbatches;
    for (int mb = 0; mb < options_.num_microbatches; ++mb) {
      (mb < counts[replica] ? slots_[replica] : given_away)
          .push_back(first + mb);
    }
  }
  auto next = given_away.begin();
  for (size_t replica = 0; replica < counts.size(); ++replica) {
    while (slots_[replica].size() < static_cast<size_t>(counts[replica])) {
      slots_[replica].push_back(*next++);
    }
  }
  return absl::OkStatus();
}

int64_t SlotCursors::Slot(int64_t step, int replica, int microbatch) const {
  const std::vector<int64_t>& slots = slots_[static_cast<size_t>(replica)];
  const auto count = static_cast<int64_t>(slots.size());
  const int64_t turned =
      options_.may_leave_out ? (microbatch + step) % count : microbatch;
  return slots[static_cast<size_t>(turned)];
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
