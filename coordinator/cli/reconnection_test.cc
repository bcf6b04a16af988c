#include "coordinator/cli/reconnection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ReconnectionTest : public ::testing::Test {
 protected:
  Reconnection Make(Nanos limit) {
    ReconnectionOptions options;
    options.address = "host:7707";
    options.limit = limit;
    options.tell = [this](const std::string& line) { told_.push_back(line); };
    options.clock = &clock_;
    return Reconnection(std::move(options));
  }
  /// The pauses until it gives up, in milliseconds; each is waited for.
  std::vector<int64_t> PausesOf(Reconnection* reconnection) {
    std::vector<int64_t> pauses;
    for (;;) {
      const auto when = reconnection->OnFailure(gone_);
      last_ = when.status();
      if (!when.ok()) return pauses;
      const Nanos pause = *when - clock_.Now();
      pauses.push_back(std::chrono::duration_cast<milliseconds>(pause).count());
      clock_.Advance(pause);
    }
  }

  const absl::Status gone_ = absl::UnavailableError("socket closed");
  FakeClock clock_;
  std::vector<std::string> told_;
  absl::Status last_;
};

TEST_F(ReconnectionTest, PausesDoubleUpToALongestAndEndAtTheLimit) {
  Reconnection reconnection = Make(seconds(15));
  reconnection.OnAnswer();

  EXPECT_THAT(PausesOf(&reconnection),
              ElementsAre(250, 500, 1000, 2000, 4000, 4000, 3250));
}

TEST_F(ReconnectionTest, GivesUpWithTheLastErrorAndTheLimit) {
  Reconnection reconnection = Make(seconds(15));
  reconnection.OnAnswer();

  PausesOf(&reconnection);

  EXPECT_EQ(last_.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(last_.message()),
              AllOf(HasSubstr("did not come back within 15 s "
                              "(--reconnect-for)"),
                    HasSubstr("socket closed")));
}

TEST_F(ReconnectionTest, SaysOnceThatItIsGoneAndOnceThatItIsBack) {
  Reconnection reconnection = Make(seconds(60));
  reconnection.OnAnswer();
  ASSERT_TRUE(reconnection.OnFailure(gone_).ok());
  ASSERT_TRUE(reconnection.OnFailure(gone_).ok());
  EXPECT_TRUE(reconnection.is_away());

  reconnection.OnAnswer();
  reconnection.OnAnswer();

  EXPECT_FALSE(reconnection.is_away());
  EXPECT_THAT(
      told_,
      ElementsAre("coordinator at host:7707 is gone; trying again for 1 min",
                  "coordinator at host:7707 is back"));
}

TEST_F(ReconnectionTest, EachAbsenceHasTheWholeLimit) {
  Reconnection reconnection = Make(seconds(2));
  reconnection.OnAnswer();
  const std::vector<int64_t> first = PausesOf(&reconnection);
  reconnection.OnAnswer();

  EXPECT_EQ(PausesOf(&reconnection), first);
  EXPECT_EQ(told_.size(), 3u);
}

TEST_F(ReconnectionTest, OneThatNeverAnsweredIsNotWaitedFor) {
  Reconnection reconnection = Make(seconds(60));

  EXPECT_EQ(reconnection.OnFailure(gone_).status(), gone_);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(ReconnectionTest, WithoutALimitTheFirstFailureIsTheEnd) {
  Reconnection reconnection = Make(seconds(0));
  reconnection.OnAnswer();

  EXPECT_EQ(reconnection.OnFailure(gone_).status(), gone_);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(ReconnectionTest, OtherErrorsEndIt) {
  Reconnection reconnection = Make(seconds(60));
  reconnection.OnAnswer();
  const absl::Status none = absl::NotFoundError("no job 'text-1'");
  const absl::Status stopped = absl::CancelledError("stopped");

  EXPECT_EQ(reconnection.OnFailure(none).status(), none);
  EXPECT_EQ(reconnection.OnFailure(stopped).status(), stopped);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(ReconnectionTest, ALimitOfCenturiesIsNone) {
  Reconnection reconnection = Make(Nanos::max());
  reconnection.OnAnswer();
  clock_.Advance(std::chrono::hours(1));

  const auto when = reconnection.OnFailure(gone_);

  ASSERT_TRUE(when.ok()) << when.status();
  EXPECT_EQ(*when - clock_.Now(), Reconnection::kFirstPause);
}

}  // namespace
}  // namespace deltapipe
