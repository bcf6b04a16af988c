// The time, as an injected dependency: components that decide by time (rate
// shaping, heartbeats, retransmission) take a Clock, so that tests can use
// FakeClock and never sleep.
//
// Thread-safe. Durations and instants are nanoseconds on a steady clock whose
// zero has no meaning; WallTime() is for records that people read.
#ifndef DELTAPIPE_BASE_CLOCK_H_
#define DELTAPIPE_BASE_CLOCK_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <vector>

#include "base/mutex.h"

namespace deltapipe {

using Nanos = std::chrono::nanoseconds;

class FakeClock;

/// Wakes sleepers early. Owned by whoever may cancel; sleepers borrow it.
///
/// Lock order: a token's lock before a FakeClock's.
class CancelToken {
 public:
  /// Wakes every present and future sleeper. Idempotent.
  void Cancel();
  bool is_cancelled() const;

 private:
  friend class RealClock;
  friend class FakeClock;
  Mutex mutex_;
  CondVar cancelled_changed_;
  /// Written under mutex_; read without it by FakeClock.
  std::atomic<bool> is_cancelled_{false};
  /// The fake clocks that threads sleep on with this token, one entry a thread.
  std::vector<FakeClock*> fake_clocks_ DP_GUARDED_BY(mutex_);
};

class Clock {
 public:
  virtual ~Clock() = default;
  /// Steady time since an arbitrary zero.
  virtual Nanos Now() = 0;
  /// Milliseconds since the Unix epoch.
  virtual int64_t WallMillis() = 0;
  /// Sleeps until Now() >= when and returns true; returns false, at once, if
  /// `cancel` (may be null) is or becomes cancelled, even when the time has
  /// come.
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
  /// Advance without a race. Threads whose time has come or whose token is
  /// cancelled do not count, even if they have not run yet.
  void AwaitSleepers(int count);

 private:
  friend class CancelToken;
  struct Sleeper {
    Nanos when;
    const CancelToken* cancel;  // may be null
  };
  void Wake();
  bool MustWake(const Sleeper& sleeper) const DP_REQUIRES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  Nanos now_ DP_GUARDED_BY(mutex_){0};
  std::list<Sleeper> sleepers_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_CLOCK_H_
