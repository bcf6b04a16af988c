#include "coordinator/cli/watch_position.h"

#include <algorithm>

namespace deltapipe {

WatchedEvent WatchPosition::Add(const v1::JobEvent& event) {
  if (event.kind() == "step") return AddStep(event.step().step());
  if (event.kind() == "bookmark") {
    after_sequence_ = std::max(after_sequence_, event.sequence());
    return WatchedEvent::kKnown;
  }
  // 0: one that could not be stored.
  if (event.sequence() != 0 && event.sequence() <= after_sequence_) {
    return WatchedEvent::kKnown;
  }
  after_sequence_ = std::max(after_sequence_, event.sequence());
  if (event.kind() == "restart" || event.state() == v1::JOB_STATE_PENDING) {
    last_step_ = -1;
  }
  return WatchedEvent::kNews;
}

WatchedEvent WatchPosition::AddStep(int64_t step) {
  const bool may_differ = has_broken_off_ && last_step_ >= 0;
  if (may_differ && step <= last_step_) return WatchedEvent::kKnown;
  const bool has_gap = may_differ && step > last_step_ + 1;
  last_step_ = step;
  has_broken_off_ = false;
  return has_gap ? WatchedEvent::kNewsAfterGap : WatchedEvent::kNews;
}

void WatchPosition::BreakOff() { has_broken_off_ = true; }

}  // namespace deltapipe
