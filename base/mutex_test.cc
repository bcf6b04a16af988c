#include "base/mutex.h"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

#include "base/thread.h"

namespace deltapipe {
namespace {

TEST(MutexTest, ExcludesOtherThreads) {
  Mutex mutex;
  int count = 0;
  {
    std::vector<Thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back("adder", [&] {
        for (int j = 0; j < 2000; ++j) {
          MutexLock lock(&mutex);
          ++count;
        }
      });
    }
  }

  EXPECT_EQ(count, 8000);
}

TEST(CondVarTest, WaitEndsWhenThePredicateHolds) {
  Mutex mutex;
  CondVar changed;
  bool is_ready = false;
  Thread setter("setter", [&] {
    MutexLock lock(&mutex);
    is_ready = true;
    changed.NotifyAll();
  });

  MutexLock lock(&mutex);
  changed.Wait(lock, [&] { return is_ready; });

  EXPECT_TRUE(is_ready);
}

TEST(CondVarTest, WaitUntilTellsThatTheDeadlinePassed) {
  Mutex mutex;
  CondVar never;
  MutexLock lock(&mutex);

  EXPECT_FALSE(never.WaitUntil(lock,
                               Deadline::After(std::chrono::milliseconds(1)),
                               [] { return false; }));
}

TEST(CondVarTest, WaitUntilAnInfiniteDeadlineEndsByNotification) {
  Mutex mutex;
  CondVar changed;
  int turn = 0;
  Thread other("other", [&] {
    MutexLock lock(&mutex);
    changed.WaitUntil(lock, Deadline::Infinite(), [&] { return turn == 1; });
    turn = 2;
    changed.NotifyOne();
  });

  MutexLock lock(&mutex);
  turn = 1;
  changed.NotifyOne();

  EXPECT_TRUE(
      changed.WaitUntil(lock, Deadline::Infinite(), [&] { return turn == 2; }));
}

TEST(DeadlineTest, InfiniteNeverPasses) {
  EXPECT_TRUE(Deadline::Infinite().is_infinite());
  EXPECT_FALSE(Deadline::Infinite().has_passed());
  EXPECT_EQ(Deadline::Infinite().remaining(), std::chrono::nanoseconds::max());
}

TEST(DeadlineTest, AfterTheLongestTimeIsInfiniteInsteadOfOverflowing) {
  EXPECT_TRUE(Deadline::After(std::chrono::nanoseconds::max()).is_infinite());
}

TEST(DeadlineTest, PassedDeadlineHasNothingLeft) {
  const Deadline deadline = Deadline::After(std::chrono::nanoseconds(-1));

  EXPECT_TRUE(deadline.has_passed());
  EXPECT_EQ(deadline.remaining().count(), 0);
}

TEST(DeadlineTest, RemainingIsAtMostTheWait) {
  const Deadline deadline = Deadline::After(std::chrono::hours(1));

  EXPECT_FALSE(deadline.has_passed());
  EXPECT_LE(deadline.remaining(), std::chrono::hours(1));
  EXPECT_GT(deadline.remaining(), std::chrono::minutes(59));
}

}  // namespace
}  // namespace deltapipe
