#include "coordinator/metrics/straggler_score.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(StragglerScoreTest, TheFastestHasOneAndOneThatTakesTwiceTheTimeAHalf) {
  EXPECT_THAT(StragglerScores({{0.1, 0}, {0.2, 0}, {0.1, 0}}),
              ElementsAre(1, 0.5, 1));
}

TEST(StragglerScoreTest, AStageWithMoreWorkIsNoStraggler) {
  EXPECT_THAT(StragglerScores({{0.1, 0.05}, {0.2, 0.1}}), ElementsAre(1, 1));
}

TEST(StragglerScoreTest, PredictionsCountOnlyIfAllHaveOne) {
  EXPECT_THAT(StragglerScores({{0.1, 0.05}, {0.2, 0}}), ElementsAre(1, 0.5));
}

TEST(StragglerScoreTest, WhoHasNotReportedHasNone) {
  EXPECT_THAT(StragglerScores({{0, 0.1}, {0.2, 0.1}}), ElementsAre(0, 1));
  EXPECT_THAT(StragglerScores({}), IsEmpty());
}

}  // namespace
}  // namespace deltapipe
