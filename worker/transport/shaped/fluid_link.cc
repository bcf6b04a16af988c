#include "worker/transport/shaped/fluid_link.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace deltapipe {
namespace {

// What rounding may leave of a message that is through.
constexpr double kNothingLeft = 1e-6;

double NanosPerByte(double bits_per_second) {
  return bits_per_second > 0 ? 8e9 / bits_per_second : 0;
}

}  // namespace

FluidLink::FluidLink(double bits_per_second, Nanos now)
    : nanos_per_byte_(NanosPerByte(bits_per_second)), origin_(now) {}

void FluidLink::SetRate(double bits_per_second, Nanos now) {
  Advance(now);
  nanos_per_byte_ = NanosPerByte(bits_per_second);
  if (nanos_per_byte_ > 0) return;
  for (auto& [id, flow] : flows_) {
    for (const Message& message : flow.waiting) {
      flow.departed.push_back({now, message.bytes});
    }
    flow.waiting.clear();
  }
}

FluidLink::FlowId FluidLink::AddFlow() {
  flows_.emplace(next_flow_, Flow());
  return next_flow_++;
}

void FluidLink::RemoveFlow(FlowId flow, Nanos now) {
  Advance(now);
  flows_.erase(flow);
}

void FluidLink::Enqueue(FlowId flow, int64_t bytes, Nanos now) {
  Advance(now);
  Flow& target = flows_[flow];
  if (nanos_per_byte_ == 0) {
    target.departed.push_back({now, bytes});
    return;
  }
  target.waiting.push_back({bytes, static_cast<double>(bytes)});
}

void FluidLink::Advance(Nanos now) {
  Carry(static_cast<double>((now - origin_).count()));
}

Nanos FluidLink::AtTime() const {
  return origin_ + Nanos(static_cast<int64_t>(std::ceil(time_)));
}

std::vector<FluidLink::Flow*> FluidLink::BusyFlows() {
  std::vector<Flow*> busy;
  for (auto& [id, flow] : flows_) {
    if (!flow.waiting.empty()) busy.push_back(&flow);
  }
  return busy;
}

void FluidLink::Carry(double until) {
  std::vector<Flow*> busy = BusyFlows();
  while (!busy.empty() && time_ < until) {
    double least_left = std::numeric_limits<double>::max();
    for (const Flow* flow : busy) {
      least_left = std::min(least_left, flow->waiting.front().bytes_left);
    }
    const double nanos_per_share =
        nanos_per_byte_ * static_cast<double>(busy.size());
    const double share =
        std::min(least_left, (until - time_) / nanos_per_share);
    const bool reaches_until = share < least_left;
    time_ = reaches_until ? until : time_ + share * nanos_per_share;
    bool is_one_through = false;
    for (Flow* flow : busy) {
      Message& head = flow->waiting.front();
      head.bytes_left -= share;
      if (head.bytes_left > kNothingLeft) continue;
      flow->departed.push_back({AtTime(), head.bytes});
      flow->waiting.pop_front();
      is_one_through |= flow->waiting.empty();
    }
    if (is_one_through) busy = BusyFlows();
  }
  time_ = std::max(time_, until);
}

std::deque<FluidLink::Departure>* FluidLink::departures(FlowId flow) {
  return &flows_[flow].departed;
}

Nanos FluidLink::PredictDeparture(FlowId flow) const {
  const auto found = flows_.find(flow);
  if (found == flows_.end() || found->second.waiting.empty()) {
    return Nanos::max();
  }
  // Until the flow's head is through, every other flow sends no more than the
  // head has left; so what matters of each is the smaller of both.
  const double left = found->second.waiting.front().bytes_left;
  double carried = 0;
  for (const auto& [id, other] : flows_) {
    double waiting = 0;
    for (const Message& message : other.waiting) {
      waiting += message.bytes_left;
      if (waiting >= left) break;
    }
    carried += std::min(left, waiting);
  }
  return origin_ + Nanos(static_cast<int64_t>(
                       std::ceil(time_ + carried * nanos_per_byte_)));
}

}  // namespace deltapipe
