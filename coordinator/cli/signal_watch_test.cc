#include "coordinator/cli/signal_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "base/mutex.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(SignalWatchTest, CountsSignalsOnItsOwnThread) {
  Mutex mutex;
  CondVar changed;
  std::vector<std::pair<int, int>> seen;
  SignalWatch watch([&](int signal, int count) {
    MutexLock lock(&mutex);
    seen.emplace_back(signal, count);
    changed.NotifyAll();
  });
  const auto await = [&](size_t count) {
    MutexLock lock(&mutex);
    return changed.WaitUntil(lock, Deadline::After(std::chrono::seconds(10)),
                             [&] { return seen.size() >= count; });
  };
  EXPECT_EQ(watch.first_signal(), 0);

  // To the process: every thread has it blocked, the watch reads it.
  kill(getpid(), SIGTERM);
  ASSERT_TRUE(await(1));
  kill(getpid(), SIGINT);
  ASSERT_TRUE(await(2));

  MutexLock lock(&mutex);
  EXPECT_THAT(seen, ElementsAre(Pair(SIGTERM, 1), Pair(SIGINT, 2)));
  EXPECT_EQ(watch.first_signal(), SIGTERM);
}

TEST(SignalWatchTest, AwaitSignalReturnsOnceOneHasCome) {
  SignalWatch watch([](int, int) {});

  kill(getpid(), SIGINT);
  watch.AwaitSignal();

  EXPECT_EQ(watch.first_signal(), SIGINT);
}

TEST(SignalWatchTest, RestoresTheMask) {
  sigset_t before;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  {
    SignalWatch watch([](int, int) {});
    sigset_t during;
    pthread_sigmask(SIG_SETMASK, nullptr, &during);
    EXPECT_EQ(sigismember(&during, SIGINT), 1);
    EXPECT_EQ(sigismember(&during, SIGTERM), 1);
  }
  sigset_t after;
  pthread_sigmask(SIG_SETMASK, nullptr, &after);

  EXPECT_EQ(sigismember(&after, SIGINT), sigismember(&before, SIGINT));
  EXPECT_EQ(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}

TEST(SignalWatchTest, ExitCodesAreTheShells) {
  EXPECT_EQ(ExitCodeOfSignal(SIGINT), 130);
  EXPECT_EQ(ExitCodeOfSignal(SIGTERM), 143);
}

}  // namespace
}  // namespace deltapipe
