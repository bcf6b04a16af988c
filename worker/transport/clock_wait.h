// Waiting on a condition variable until a time of an injected Clock.
#ifndef DELTAPIPE_WORKER_TRANSPORT_CLOCK_WAIT_H_
#define DELTAPIPE_WORKER_TRANSPORT_CLOCK_WAIT_H_

#include <chrono>

#include "base/clock.h"
#include "base/deadline.h"
#include "base/mutex.h"

namespace deltapipe {

/// The time that never comes.
inline constexpr Nanos kNever = Nanos::max();

/// Waits until `ready()` or `clock` reaches `when`; returns whether `ready()`
/// holds. A clock other than the real one cannot notify `changed` and is looked
/// at every millisecond.
template <typename Predicate>
bool WaitOnClock(Clock* clock, CondVar* changed, MutexLock& lock, Nanos when,
                 Predicate ready) {
  if (when == kNever) {
    changed->Wait(lock, ready);
    return true;
  }
  if (clock == Clock::Real()) {
    return changed->WaitUntil(
        lock, Deadline::At(Deadline::Clock::time_point(when)), ready);
  }
  while (!ready()) {
    if (clock->Now() >= when) return false;
    changed->WaitUntil(lock, Deadline::After(std::chrono::milliseconds(1)),
                       ready);
  }
  return true;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_CLOCK_WAIT_H_
