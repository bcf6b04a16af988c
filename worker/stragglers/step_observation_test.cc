#include "worker/stragglers/step_observation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace deltapipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ReplicaObservation Cut() {
  ReplicaObservation observation;
  observation.planned = 4;
  observation.executed = 2;
  observation.ready_seconds = {0, 1, 3};
  observation.done_seconds = {2, 4};
  observation.step_seconds = 6;
  return observation;
}

std::vector<double> Encoded(const ReplicaObservation& observation, int max) {
  std::vector<double> values(ObservationDoubles(max), -1);
  EncodeObservation(observation, absl::MakeSpan(values));
  return values;
}

TEST(StepObservationTest, SurvivesTheExchange) {
  const absl::StatusOr<ReplicaObservation> read =
      DecodeObservation(Encoded(Cut(), 5));

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->planned, 4);
  EXPECT_EQ(read->executed, 2);
  EXPECT_THAT(read->ready_seconds, ElementsAre(0, 1, 3));
  EXPECT_THAT(read->done_seconds, ElementsAre(2, 4));
  EXPECT_EQ(read->step_seconds, 6);
}

TEST(StepObservationTest, AReplicaThatDidNothingSurvivesTheExchange) {
  ReplicaObservation observation;
  observation.planned = 4;
  observation.ready_seconds = {0.5};

  const absl::StatusOr<ReplicaObservation> read =
      DecodeObservation(Encoded(observation, 4));

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->executed, 0);
  EXPECT_THAT(read->ready_seconds, ElementsAre(0.5));
  EXPECT_THAT(read->done_seconds, IsEmpty());
}

TEST(StepObservationTest, RefusesWhatCannotBe) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const struct {
    size_t index;
    double value;
    const char* why;
  } cases[] = {{0, 6, "expected counts up to 5"},
               {0, 1.5, "expected counts"},
               {0, nan, "expected counts"},
               {1, 5, "expected counts"},
               {1, -1, "expected counts"},
               {2, nan, "time nan"},
               {2, -1, "time -1"},
               {4, 9, "time 3"},
               {8, nan, "time nan"},
               {9, 1, "time 1"}};
  for (const auto& one : cases) {
    std::vector<double> values = Encoded(Cut(), 5);
    values[one.index] = one.value;
    const absl::Status status = DecodeObservation(values).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << one.index;
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.why));
  }
  EXPECT_FALSE(DecodeObservation({1, 1}).ok());
  EXPECT_FALSE(DecodeObservation({1, 1, 1, 1}).ok());
}

TEST(StepObservationTest, MoreMicrobatchesThanMeasuredContinueAtItsPace) {
  const ReplicaObservation observation = Cut();

  EXPECT_EQ(observation.PaceSeconds(), 2);
  EXPECT_EQ(observation.FinishSeconds(1), 2);
  EXPECT_EQ(observation.FinishSeconds(2), 4);
  EXPECT_EQ(observation.FinishSeconds(5), 10);
}

}  // namespace
}  // namespace deltapipe
