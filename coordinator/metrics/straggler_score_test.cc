#include "coordinator/metrics/straggler_score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(StragglerScoreTest, TheFastestHasOneAndOneThatTakesTwiceTheTimeAHalf) {
  EXPECT_THAT(StragglerScores({{0, 0.1, 0}, {0, 0.2, 0}, {0, 0.1, 0}}),
              ElementsAre(1, 0.5, 1));
}

TEST(StragglerScoreTest, ReplicasAreComparedWithinTheirStage) {
  EXPECT_THAT(StragglerScores(
                  {{0, 0.1, 0.1}, {0, 0.1, 0.1}, {1, 0.4, 0.1}, {1, 0.8, 0.1}}),
              ElementsAre(1, 1, 1, 0.5));
}

TEST(StragglerScoreTest, OfOneReplicaAStageWithMoreWorkIsNoStraggler) {
  EXPECT_THAT(StragglerScores({{0, 0.1, 0.05}, {1, 0.2, 0.1}}),
              ElementsAre(1, 1));
}

TEST(StragglerScoreTest, PredictionsCountOnlyIfAllHaveOne) {
  EXPECT_THAT(StragglerScores({{0, 0.1, 0.05}, {1, 0.2, 0}}),
              ElementsAre(1, 0.5));
}

TEST(StragglerScoreTest, WhoHasNotReportedHasNone) {
  EXPECT_THAT(StragglerScores({{0, 0, 0.1}, {1, 0.2, 0.1}}), ElementsAre(0, 1));
  EXPECT_THAT(StragglerScores({}), IsEmpty());
}

}  // namespace
}  // namespace deltapipe
