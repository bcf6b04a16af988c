#include "base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <string>

namespace deltapipe {
namespace {

std::string NameOfThisThread() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

TEST(ThreadTest, BodyRunsUnderItsName) {
  // Many short threads: the name must be there before the body starts.
  for (int i = 0; i < 100; ++i) {
    std::string name;
    Thread thread("encoder", [&name] { name = NameOfThisThread(); });
    thread.Join();
    EXPECT_EQ(name, "encoder");
  }
}

TEST(ThreadTest, LongNamesAreCutAtFifteenBytes) {
  std::string name;
  Thread thread("a-name-of-many-more-bytes",
                [&name] { name = NameOfThisThread(); });
  thread.Join();

  EXPECT_EQ(name, "a-name-of-many-");
}

TEST(ThreadTest, DestructorJoins) {
  std::atomic<bool> has_ended{false};
  {
    Thread thread("worker", [&has_ended] { has_ended = true; });
  }

  EXPECT_TRUE(has_ended);
}

TEST(ThreadTest, MoveAssignmentJoinsTheThreadHeldBefore) {
  std::atomic<bool> has_ended{false};
  Thread thread("first", [&has_ended] { has_ended = true; });

  thread = Thread("second", [] {});

  EXPECT_TRUE(has_ended);
  EXPECT_TRUE(thread.is_running());
}

TEST(ThreadTest, JoinIsIdempotentAndADefaultThreadHasNothingToJoin) {
  Thread thread("worker", [] {});
  thread.Join();
  thread.Join();
  Thread none;
  none.Join();

  EXPECT_FALSE(thread.is_running());
  EXPECT_FALSE(none.is_running());
}

}  // namespace
}  // namespace deltapipe
