#include "coordinator/background/trace_turns.h"

#include <gtest/gtest.h>

namespace deltapipe {
namespace {

constexpr Nanos kNow = std::chrono::seconds(100);

TEST(TraceTurnsTest, TurnLastsUntilEveryRankHasSentAll) {
  TraceTurns turns;
  turns.Begin(2);
  turns.Ask(TraceOwner::kSample, 2, 10, kNow);

  EXPECT_EQ(turns.Take(0), TraceOwner::kSample);
  EXPECT_EQ(turns.Take(0), TraceOwner::kSample);
  EXPECT_EQ(turns.Take(1), TraceOwner::kSample);
  EXPECT_EQ(turns.owner(), TraceOwner::kSample);
  EXPECT_EQ(turns.Take(1), TraceOwner::kSample);
  EXPECT_EQ(turns.owner(), TraceOwner::kNobody);
}

TEST(TraceTurnsTest, TraceNobodyAskedForIsNobodys) {
  TraceTurns turns;
  turns.Begin(2);
  EXPECT_EQ(turns.Take(1), TraceOwner::kNobody);
  turns.Ask(TraceOwner::kUser, 1, 10, kNow);

  EXPECT_EQ(turns.Take(1), TraceOwner::kUser);
  EXPECT_EQ(turns.Take(1), TraceOwner::kNobody);
  EXPECT_EQ(turns.owner(), TraceOwner::kUser);
}

TEST(TraceTurnsTest, TraceBeforeTrainingBeganIsNobodys) {
  TraceTurns turns;

  EXPECT_EQ(turns.Take(0), TraceOwner::kNobody);
  turns.Begin(1);
  EXPECT_EQ(turns.Take(1), TraceOwner::kNobody);
}

TEST(TraceTurnsTest, LostTracesEndTheTurnByStepsAndTime) {
  TraceTurns turns;
  turns.Begin(2);
  turns.Ask(TraceOwner::kUser, 3, 10, kNow);
  turns.Take(0);
  const int64_t end_step = 10 + 3 + TraceTurns::kSlackSteps;
  const Nanos end_time = kNow + TraceTurns::kSlackTime;

  EXPECT_FALSE(turns.Expire(end_step - 1, end_time));
  EXPECT_FALSE(turns.Expire(end_step, end_time - Nanos(1)));
  EXPECT_EQ(turns.owner(), TraceOwner::kUser);
  EXPECT_TRUE(turns.Expire(end_step, end_time));
  EXPECT_EQ(turns.owner(), TraceOwner::kNobody);
  EXPECT_EQ(turns.Take(0), TraceOwner::kNobody);
  EXPECT_FALSE(turns.Expire(end_step, end_time));
}

TEST(TraceTurnsTest, GenerationBeginsWithoutRequests) {
  TraceTurns turns;
  turns.Begin(1);
  turns.Ask(TraceOwner::kSample, 2, 10, kNow);

  turns.Begin(1);

  EXPECT_EQ(turns.owner(), TraceOwner::kNobody);
  EXPECT_EQ(turns.Take(0), TraceOwner::kNobody);
}

}  // namespace
}  // namespace deltapipe
