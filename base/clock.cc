#include "base/clock.h"

#include <algorithm>

namespace deltapipe {

void CancelToken::Cancel() {
  MutexLock lock(&mutex_);
  is_cancelled_ = true;
  cancelled_changed_.NotifyAll();
  for (FakeClock* clock : fake_clocks_) clock->Wake();
}

bool CancelToken::is_cancelled() const { return is_cancelled_; }

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
        lock, deadline, [token] { return token->is_cancelled_.load(); });
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

bool FakeClock::MustWake(const Sleeper& sleeper) const {
  return now_ >= sleeper.when ||
         (sleeper.cancel != nullptr && sleeper.cancel->is_cancelled());
}

void FakeClock::Wake() {
  MutexLock lock(&mutex_);
  changed_.NotifyAll();
}

bool FakeClock::SleepUntil(Nanos when, CancelToken* cancel) {
  if (cancel != nullptr) {
    MutexLock lock(&cancel->mutex_);
    cancel->fake_clocks_.push_back(this);
  }
  {
    MutexLock lock(&mutex_);
    const auto self = sleepers_.insert(sleepers_.end(), {when, cancel});
    changed_.NotifyAll();
    changed_.Wait(lock, [&] { return MustWake(*self); });
    sleepers_.erase(self);
  }
  if (cancel == nullptr) return true;
  MutexLock lock(&cancel->mutex_);
  cancel->fake_clocks_.erase(std::find(cancel->fake_clocks_.begin(),
                                       cancel->fake_clocks_.end(), this));
  return !cancel->is_cancelled_;
}

void FakeClock::Advance(Nanos by) {
  MutexLock lock(&mutex_);
  now_ += by;
  changed_.NotifyAll();
}

void FakeClock::AwaitSleepers(int count) {
  MutexLock lock(&mutex_);
  changed_.Wait(lock, [&] {
    return std::count_if(sleepers_.begin(), sleepers_.end(),
                         [this](const Sleeper& sleeper) {
                           return !MustWake(sleeper);
                         }) >= count;
  });
}

}  // namespace deltapipe
