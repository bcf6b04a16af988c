// One directed link as a fluid: all flows with something to send share its rate
// equally at every moment (processor sharing), each flow's messages go in
// order.
//
// So the link is never idle while anything waits, large messages of several
// flows go at the same pace, and a small message on a flow of its own is
// through after its own size times the number of busy flows. Times are exact to
// a nanosecond and do not drift, however late it is asked. Not thread-safe;
// times that are passed in must not go back.
#ifndef DELTAPIPE_WORKER_TRANSPORT_SHAPED_FLUID_LINK_H_
#define DELTAPIPE_WORKER_TRANSPORT_SHAPED_FLUID_LINK_H_

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "base/clock.h"

namespace deltapipe {

class FluidLink {
 public:
  using FlowId = int64_t;
  struct Departure {
    Nanos time;  // of the last byte
    int64_t bytes;
  };

  /// 0 bits per second: unlimited.
  FluidLink(double bits_per_second, Nanos now);

  /// From `now` on, also for what waits.
  void SetRate(double bits_per_second, Nanos now);

  FlowId AddFlow();
  /// Forgets the flow and what it still has to send.
  void RemoveFlow(FlowId flow, Nanos now);

  void Enqueue(FlowId flow, int64_t bytes, Nanos now);
  /// Carries everything until `now`.
  void Advance(Nanos now);

  /// The departed messages of a flow, in order; the caller takes them away.
  std::deque<Departure>* departures(FlowId flow);
  /// When the flow's next message will have departed if no other is enqueued;
  /// Nanos::max() if it has none.
  Nanos PredictDeparture(FlowId flow) const;

 private:
  struct Message {
    int64_t bytes;
    double bytes_left;
  };
  struct Flow {
    std::deque<Message> waiting;
    std::deque<Departure> departed;
  };
  Nanos AtTime() const;
  void Carry(double until);
  std::vector<Flow*> BusyFlows();

  double nanos_per_byte_;
  const Nanos origin_;
  double time_ = 0;  // nanoseconds since origin_
  FlowId next_flow_ = 1;
  std::map<FlowId, Flow> flows_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_SHAPED_FLUID_LINK_H_
