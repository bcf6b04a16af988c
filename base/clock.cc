#include "base/clock.h"

namespace deltapipe {

void CancelToken::Cancel() {
  {
    MutexLock lock(&mutex_);
    is_cancelled_ = true;
  }
  cancelled_changed_.NotifyAll();
}

bool CancelToken::is_cancelled() const {
  MutexLock lock(&mutex_);
  return is_cancelled_;
}

class RealClock : public Clock {
 public:
  Nanos Now() override {
    return std::chrono::steady_clock::now().time_since_epoch();
  }

  int64_t WallMillis() override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }

  bool SleepUntil(Nanos when, CancelToken* cancel) override {
    CancelToken never;
    CancelToken* token = cancel != nullptr ? cancel : &never;
    const auto deadline = Deadline::At(std::chrono::steady_clock::time_point(
        std::chrono::duration_cast<std::chrono::steady_clock::duration>(when)));
    MutexLock lock(&token->mutex_);
    return !token->cancelled_changed_.WaitUntil(
        lock, deadline, [token] { return token->is_cancelled_; });
  }
};

Clock* Clock::Real() {
  static Clock* const clock = new RealClock;
  return clock;
}

Nanos FakeClock::Now() {
  MutexLock lock(&mutex_);
  return now_;
}

int64_t FakeClock::WallMillis() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Now()).count();
}

bool FakeClock::SleepUntil(Nanos when, CancelToken* cancel) {
  MutexLock lock(&mutex_);
  ++num_sleepers_;
  changed_.NotifyAll();
  // Cancellation has its own lock and cannot notify this clock, hence the short
  // real waits; only tests run this.
  bool cancelled = false;
  while (now_ < when && !cancelled) {
    changed_.WaitUntil(lock, Deadline::After(std::chrono::milliseconds(1)),
                       [&] { return now_ >= when; });
    cancelled = cancel != nullptr && cancel->is_cancelled();
  }
  --num_sleepers_;
  return now_ >= when;
}

void FakeClock::Advance(Nanos by) {
  {
    MutexLock lock(&mutex_);
    now_ += by;
  }
  changed_.NotifyAll();
}

void FakeClock::AwaitSleepers(int count) {
  MutexLock lock(&mutex_);
  changed_.Wait(lock, [&] { return num_sleepers_ >= count; });
}

}  // namespace deltapipe
