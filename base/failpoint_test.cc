#include "base/failpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

namespace deltapipe {
namespace {

/// Run in a process of its own, below.
TEST(FailpointTest, DISABLED_PassThrice) {
  for (int i = 0; i < 3; ++i) Failpoint("here");
}

/// This program again, with that test and these failpoints.
void PassThriceWith(const char* failpoints) {
  setenv("DELTAPIPE_FAILPOINTS", failpoints, 1);
  execl("/proc/self/exe", "failpoint_test",
        "--gtest_filter=FailpointTest.DISABLED_PassThrice",
        "--gtest_also_run_disabled_tests", nullptr);
  _exit(127);
}

TEST(FailpointDeathTest, KillsAtTheNamedPlaceAndTime) {
  EXPECT_EXIT(PassThriceWith("there=kill@1,here=kill@3"),
              testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT(PassThriceWith("here=kill@4"), testing::ExitedWithCode(0), "");
}

TEST(FailpointDeathTest, RefusesWhatIsNone) {
  EXPECT_EXIT(PassThriceWith("here=sleep"), testing::ExitedWithCode(2),
              "'here=sleep' is no failpoint: expected NAME=kill@N");
}

TEST(FailpointTest, WithoutTheVariableNothingHappens) {
  EXPECT_FALSE(failpoint_internal::is_any_set);
  Failpoint("here");
}

}  // namespace
}  // namespace deltapipe
