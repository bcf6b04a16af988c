#include "coordinator/background/timekeeper.h"

#include <utility>

namespace deltapipe {

Timekeeper::Timekeeper(Clock* clock, Nanos interval,
                       std::function<void(Nanos)> tick)
    : thread_("timekeeper", [this, clock, interval, tick = std::move(tick)] {
        Nanos last = clock->Now();
        while (clock->SleepUntil(last + interval, &stopped_)) {
          const Nanos now = clock->Now();
          tick(now - last);
          last = now;
        }
      }) {}

Timekeeper::~Timekeeper() {
  stopped_.Cancel();
  thread_.Join();
}

}  // namespace deltapipe
