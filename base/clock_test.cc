#include "base/clock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "base/thread.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(FakeClockTest, StandsStillUntilAdvanced) {
  FakeClock clock;
  const Nanos before = clock.Now();

  EXPECT_EQ(clock.Now(), before);

  clock.Advance(seconds(3));
  EXPECT_EQ(clock.Now() - before, seconds(3));
  EXPECT_EQ(clock.WallMillis(), 3000);
}

TEST(FakeClockTest, SleeperWakesExactlyWhenItsTimeHasCome) {
  FakeClock clock;
  std::atomic<bool> woke{false};
  Thread sleeper("sleeper", [&] {
    EXPECT_TRUE(clock.SleepUntil(seconds(10), nullptr));
    woke = true;
  });
  clock.AwaitSleepers(1);

  clock.Advance(seconds(10) - Nanos(1));
  clock.AwaitSleepers(1);
  EXPECT_FALSE(woke);

  clock.Advance(Nanos(1));
  sleeper.Join();
  EXPECT_TRUE(woke);
}

TEST(FakeClockTest, PastTimesDoNotSleep) {
  FakeClock clock;
  clock.Advance(seconds(5));

  EXPECT_TRUE(clock.SleepUntil(seconds(5), nullptr));
}

TEST(FakeClockTest, AwaitSleepersIgnoresThoseWhoseTimeHasCome) {
  // A test that advances twice must not take the sleeper of the first round,
  // which has not run yet, for one of the second.
  FakeClock clock;
  std::atomic<int> rounds{0};
  Thread sleeper("sleeper", [&] {
    for (int i = 1; i <= 200; ++i) {
      clock.SleepUntil(seconds(i), nullptr);
      rounds = i;
    }
  });

  for (int i = 1; i <= 200; ++i) {
    clock.AwaitSleepers(1);
    EXPECT_EQ(rounds, i - 1);
    clock.Advance(seconds(1));
  }
  sleeper.Join();
  EXPECT_EQ(rounds, 200);
}

TEST(FakeClockTest, CancelWakesAllSleepersOfTheToken) {
  FakeClock clock;
  CancelToken cancel;
  std::vector<Thread> sleepers;
  for (int i = 0; i < 3; ++i) {
    sleepers.emplace_back("sleeper", [&] {
      EXPECT_FALSE(clock.SleepUntil(seconds(1000), &cancel));
    });
  }
  clock.AwaitSleepers(3);

  cancel.Cancel();

  for (Thread& sleeper : sleepers) sleeper.Join();
  EXPECT_TRUE(cancel.is_cancelled());
}

class AnyClockTest : public testing::TestWithParam<bool> {
 protected:
  Clock* clock() { return GetParam() ? Clock::Real() : &fake_; }

 private:
  FakeClock fake_;
};

TEST_P(AnyClockTest, CancelledTokenReturnsFalseAtOnce) {
  CancelToken cancel;
  cancel.Cancel();
  cancel.Cancel();

  EXPECT_FALSE(clock()->SleepUntil(clock()->Now() + seconds(1000), &cancel));
}

TEST_P(AnyClockTest, CancelledTokenReturnsFalseEvenWhenTheTimeHasCome) {
  CancelToken cancel;
  cancel.Cancel();

  EXPECT_FALSE(clock()->SleepUntil(clock()->Now(), &cancel));
}

TEST_P(AnyClockTest, PastTimeReturnsTrueWithALiveToken) {
  CancelToken cancel;

  EXPECT_TRUE(clock()->SleepUntil(clock()->Now() - seconds(1), &cancel));
}

INSTANTIATE_TEST_SUITE_P(Clocks, AnyClockTest, testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Real" : "Fake";
                         });

TEST(RealClockTest, SleepsAtLeastUntilTheTime) {
  Clock* clock = Clock::Real();
  const Nanos when = clock->Now() + milliseconds(2);

  EXPECT_TRUE(clock->SleepUntil(when, nullptr));

  EXPECT_GE(clock->Now(), when);
}

TEST(RealClockTest, CancelFromAnotherThreadWakesTheSleeper) {
  CancelToken cancel;
  Thread canceller("canceller", [&] { cancel.Cancel(); });

  EXPECT_FALSE(Clock::Real()->SleepUntil(
      Clock::Real()->Now() + std::chrono::hours(1), &cancel));
}

}  // namespace
}  // namespace deltapipe
