// The bandwidth and the latency of one directed link, for links that are slower
// than the machine they are emulated on.
//
// Shared by all shaped channels from one worker to one other; the opposite
// direction has its own, at the other end. A message departs when the link has
// carried its last byte and arrives the latency later. Thread-safe.
//
//   auto link = LinkShaper::Create({1e8, milliseconds(10)}).value();
//   channel = ShapeChannel(std::move(channel), link);
#ifndef DELTAPIPE_WORKER_TRANSPORT_SHAPED_LINK_SHAPER_H_
#define DELTAPIPE_WORKER_TRANSPORT_SHAPED_LINK_SHAPER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "worker/transport/shaped/fluid_link.h"

namespace deltapipe {

struct LinkOptions {
  double bits_per_second = 0;  // 0: unlimited
  Nanos latency{0};            // one way
  /// What a channel may queue for the link before Send blocks; two messages
  /// always may.
  int64_t queue_bytes = int64_t{4} << 20;
  Clock* clock = Clock::Real();
};

class LinkShaper {
 public:
  /// INVALID_ARGUMENT for a negative or infinite rate, a negative latency.
  static absl::StatusOr<std::shared_ptr<LinkShaper>> Create(
      const LinkOptions& options);

  const LinkOptions& options() const { return options_; }
  /// Nothing is to be held back. May change with SetRate.
  bool is_transparent() const { return is_transparent_; }
  double bits_per_second() const { return bits_per_second_; }
  /// From now on, also for what waits already; 0: unlimited. Not while a
  /// channel of the link is being destroyed.
  void SetRate(double bits_per_second);

  /// `wake` is called, under no lock, when the rate has changed.
  FluidLink::FlowId AddFlow(std::function<void()> wake);
  void RemoveFlow(FluidLink::FlowId flow);
  void Enqueue(FluidLink::FlowId flow, int64_t bytes);

  struct FlowState {
    Nanos next_departure = Nanos::max();  // predicted; max() if none waits
    /// Of the oldest message that was not taken; a prediction unless
    /// `has_arrived`; max() if there is none.
    Nanos next_arrival = Nanos::max();
    bool has_arrived = false;
    /// Departed and within their latency.
    int64_t num_in_flight = 0;
    int64_t bytes_in_flight = 0;
  };
  FlowState State(FluidLink::FlowId flow);
  /// Takes the oldest message, which has arrived.
  void TakeArrival(FluidLink::FlowId flow);

 private:
  explicit LinkShaper(const LinkOptions& options);

  const LinkOptions options_;
  Mutex mutex_;
  FluidLink link_ DP_GUARDED_BY(mutex_);
  std::atomic<double> bits_per_second_;
  std::atomic<bool> is_transparent_;
  std::map<FluidLink::FlowId, std::function<void()>> wakers_
      DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_SHAPED_LINK_SHAPER_H_
