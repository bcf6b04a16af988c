// A point on the steady clock by which a wait gives up. Every blocking call in
// this code base takes one.
//
//   channel->Receive(Deadline::After(std::chrono::seconds(10)));
#ifndef DELTAPIPE_BASE_DEADLINE_H_
#define DELTAPIPE_BASE_DEADLINE_H_

#include <chrono>

namespace deltapipe {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline Infinite() { return Deadline(Clock::time_point::max()); }
  static Deadline At(Clock::time_point when) { return Deadline(when); }
  /// Infinite if `wait` reaches past the end of the clock.
  static Deadline After(std::chrono::nanoseconds wait) {
    const Clock::time_point now = Clock::now();
    const auto ticks = std::chrono::duration_cast<Clock::duration>(wait);
    if (ticks >= Clock::time_point::max() - now) return Infinite();
    return Deadline(now + ticks);
  }

  bool is_infinite() const { return when_ == Clock::time_point::max(); }
  bool has_passed() const { return !is_infinite() && Clock::now() >= when_; }
  Clock::time_point time_point() const { return when_; }

  friend bool operator<(Deadline a, Deadline b) { return a.when_ < b.when_; }

  /// The time left: never negative; a very long time when infinite.
  std::chrono::nanoseconds remaining() const {
    if (is_infinite()) return std::chrono::nanoseconds::max();
    const auto left = when_ - Clock::now();
    return left.count() < 0 ? std::chrono::nanoseconds(0)
                            : std::chrono::nanoseconds(left);
  }

 private:
  explicit Deadline(Clock::time_point when) : when_(when) {}
  Clock::time_point when_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_DEADLINE_H_
