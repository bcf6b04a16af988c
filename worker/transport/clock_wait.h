// Waiting on a condition variable until a time of an injected Clock.
#ifndef DELTAPIPE_WORKER_TRANSPORT_CLOCK_WAIT_H_
#define DELTAPIPE_WORKER_TRANSPORT_CLOCK_WAIT_H_

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/mutex.h"

namespace deltapipe {

/// The time that never comes.
inline constexpr Nanos kNever = Nanos::max();

/// Waits until `ready()`, or `clock` reaches `when`, or `deadline` passes;
/// returns whether `ready()` holds. A clock other than the real one cannot
/// notify `changed` and is looked at every millisecond.
template <typename Predicate>
bool WaitOnClock(Clock* clock, CondVar* changed, MutexLock& lock, Nanos when,
                 Deadline deadline, Predicate ready) {
  if (when == kNever) return changed->WaitUntil(lock, deadline, ready);
  if (clock == Clock::Real()) {
    const auto at =
        std::min(deadline.time_point(), Deadline::Clock::time_point(when));
    return changed->WaitUntil(lock, Deadline::At(at), ready);
  }
  while (!ready()) {
    if (clock->Now() >= when || deadline.has_passed()) return false;
    changed->WaitUntil(lock, Deadline::After(std::chrono::milliseconds(1)),
                       ready);
  }
  return true;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_CLOCK_WAIT_H_
