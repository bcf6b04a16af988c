// The time, as an injected dependency: components that decide by time (rate
// shaping, heartbeats, retransmission) take a Clock, so that tests can use
// FakeClock and never sleep.
//
// Thread-safe. Durations and instants are nanoseconds on a steady clock whose
// zero has no meaning; WallTime() is for records that people read.
#ifndef DELTAPIPE_BASE_CLOCK_H_
#define DELTAPIPE_BASE_CLOCK_H_

#include <chrono>
#include <cstdint>
#include <memory>

#include "base/mutex.h"

namespace deltapipe {

using Nanos = std::chrono::nanoseconds;

/// Wakes sleepers early. Owned by whoever may cancel; sleepers borrow it.
class CancelToken {
 public:
  /// Wakes every present and future sleeper. Idempotent.
  void Cancel();
  bool is_cancelled() const;

 private:
  friend class RealClock;
  friend class FakeClock;
  mutable Mutex mutex_;
  CondVar cancelled_changed_;
  bool is_cancelled_ DP_GUARDED_BY(mutex_) = false;
};

class Clock {
 public:
  virtual ~Clock() = default;
  /// Steady time since an arbitrary zero.
  virtual Nanos Now() = 0;
  /// Milliseconds since the Unix epoch.
  virtual int64_t WallMillis() = 0;
  /// Sleeps until Now() >= when; returns false if `cancel` (may be null) woke
  /// it before.
  virtual bool SleepUntil(Nanos when, CancelToken* cancel) = 0;

  /// The machine's clock; never destroyed.
  static Clock* Real();
};

/// A clock that stands still until a test moves it. Sleepers wake when Advance
/// passes their time.
class FakeClock : public Clock {
 public:
  Nanos Now() override;
  int64_t WallMillis() override;
  bool SleepUntil(Nanos when, CancelToken* cancel) override;

  void Advance(Nanos by);
  /// Blocks until `count` threads sleep on this clock, so that a test can
  /// Advance without a race.
  void AwaitSleepers(int count);

 private:
  Mutex mutex_;
  CondVar changed_;
  Nanos now_ DP_GUARDED_BY(mutex_){0};
  int num_sleepers_ DP_GUARDED_BY(mutex_) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_CLOCK_H_
