// Timekeeper: calls back at even intervals, on a thread of its own.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_TIMEKEEPER_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_TIMEKEEPER_H_

#include <functional>

#include "base/clock.h"
#include "base/thread.h"

namespace deltapipe {

class Timekeeper {
 public:
  /// Calls `tick` with the time since the tick before, which is longer than
  /// `interval` if this process stood still.
  Timekeeper(Clock* clock, Nanos interval, std::function<void(Nanos)> tick);
  /// Waits for a tick that is at work.
  ~Timekeeper();

 private:
  CancelToken stopped_;
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_TIMEKEEPER_H_
