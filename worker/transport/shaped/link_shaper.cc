#include "worker/transport/shaped/link_shaper.h"

#include <cmath>
#include <deque>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace deltapipe {

absl::StatusOr<std::shared_ptr<LinkShaper>> LinkShaper::Create(
    const LinkOptions& options) {
  if (!std::isfinite(options.bits_per_second) || options.bits_per_second < 0 ||
      options.latency < Nanos(0) || options.queue_bytes < 0 ||
      options.clock == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "link of ", options.bits_per_second, " bit/s and ",
        options.latency.count(),
        " ns latency: expected a finite rate and no negative value"));
  }
  return std::shared_ptr<LinkShaper>(new LinkShaper(options));
}

LinkShaper::LinkShaper(const LinkOptions& options)
    : options_(options),
      link_(options.bits_per_second, options.clock->Now()),
      bits_per_second_(options.bits_per_second),
      is_transparent_(options.bits_per_second == 0 &&
                      options.latency == Nanos(0)) {}

void LinkShaper::SetRate(double bits_per_second) {
  std::vector<std::function<void()>> wakers;
  {
    MutexLock lock(&mutex_);
    link_.SetRate(bits_per_second, options_.clock->Now());
    bits_per_second_ = bits_per_second;
    is_transparent_ = bits_per_second == 0 && options_.latency == Nanos(0);
    for (const auto& [flow, waker] : wakers_) wakers.push_back(waker);
  }
  for (const auto& waker : wakers) waker();
}

FluidLink::FlowId LinkShaper::AddFlow(std::function<void()> wake) {
  MutexLock lock(&mutex_);
  const FluidLink::FlowId flow = link_.AddFlow();
  wakers_[flow] = std::move(wake);
  return flow;
}

void LinkShaper::RemoveFlow(FluidLink::FlowId flow) {
  MutexLock lock(&mutex_);
  link_.RemoveFlow(flow, options_.clock->Now());
  wakers_.erase(flow);
}

void LinkShaper::Enqueue(FluidLink::FlowId flow, int64_t bytes) {
  MutexLock lock(&mutex_);
  link_.Enqueue(flow, bytes, options_.clock->Now());
}

LinkShaper::FlowState LinkShaper::State(FluidLink::FlowId flow) {
  MutexLock lock(&mutex_);
  const Nanos now = options_.clock->Now();
  link_.Advance(now);
  FlowState state;
  state.next_departure = link_.PredictDeparture(flow);
  const std::deque<FluidLink::Departure>& departed = *link_.departures(flow);
  if (!departed.empty()) {
    state.next_arrival = departed.front().time + options_.latency;
    state.has_arrived = state.next_arrival <= now;
  } else if (state.next_departure != Nanos::max()) {
    state.next_arrival = state.next_departure + options_.latency;
  }
  for (const FluidLink::Departure& departure : departed) {
    if (departure.time + options_.latency <= now) continue;
    ++state.num_in_flight;
    state.bytes_in_flight += departure.bytes;
  }
  return state;
}

void LinkShaper::TakeArrival(FluidLink::FlowId flow) {
  MutexLock lock(&mutex_);
  link_.departures(flow)->pop_front();
}

}  // namespace deltapipe
