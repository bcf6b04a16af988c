#include "worker/engine/loss_scale.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(LossScaleTest, OnlyFp16HasOne) {
  for (const char* precision : {"fp32", "bf16"}) {
    LossScale scale = *LossScale::Create(precision, "auto");

    EXPECT_FALSE(scale.is_used());
    EXPECT_FALSE(scale.Update(false));
    EXPECT_EQ(scale.scale(), 1);
    EXPECT_THAT(scale.ExportState(), IsEmpty());
  }
}

TEST(LossScaleTest, ANumberStays) {
  LossScale scale = *LossScale::Create("fp16", "1024");

  EXPECT_TRUE(scale.is_used());
  EXPECT_FALSE(scale.Update(false));
  EXPECT_EQ(scale.scale(), 1024);
}

TEST(LossScaleTest, HalvesWithEachOverflowDownToOne) {
  LossScale scale = *LossScale::Create("fp16", "auto");

  for (double expected = 32768; expected >= 1; expected /= 2) {
    EXPECT_TRUE(scale.Update(false));
    EXPECT_EQ(scale.scale(), expected);
  }
  EXPECT_FALSE(scale.Update(false));
  EXPECT_EQ(scale.scale(), 1);
}

TEST(LossScaleTest, DoublesAfterTwoThousandGoodStepsInARow) {
  LossScale scale = *LossScale::Create("fp16", "auto");

  for (int step = 0; step < 1999; ++step) ASSERT_FALSE(scale.Update(true));
  EXPECT_TRUE(scale.Update(false));  // counts anew
  for (int step = 0; step < 1999; ++step) ASSERT_FALSE(scale.Update(true));
  EXPECT_TRUE(scale.Update(true));

  EXPECT_EQ(scale.scale(), 65536);
}

TEST(LossScaleTest, DoesNotGrowBeyondItsMost) {
  LossScale scale = *LossScale::Create("fp16", "auto");

  for (int step = 0; step < 20 * 2000; ++step) scale.Update(true);

  EXPECT_EQ(scale.scale(), LossScale::kMost);
}

TEST(LossScaleTest, GoesOnFromACheckpoint) {
  LossScale scale = *LossScale::Create("fp16", "auto");
  scale.Update(false);
  for (int step = 0; step < 7; ++step) scale.Update(true);
  LossScale again = *LossScale::Create("fp16", "auto");

  ASSERT_TRUE(again.ImportState(scale.ExportState()).ok());

  EXPECT_THAT(again.ExportState(), ElementsAre(32768, 7));
  for (int step = 0; step < 1992; ++step) again.Update(true);
  EXPECT_FALSE(again.scale() != 32768);
  EXPECT_TRUE(again.Update(true));
}

TEST(LossScaleTest, ACheckpointWithoutOneLeavesItsBeginning) {
  LossScale scale = *LossScale::Create("fp16", "auto");

  EXPECT_TRUE(scale.ImportState({}).ok());

  EXPECT_EQ(scale.scale(), LossScale::kFirst);
}

TEST(LossScaleTest, RefusesWhatCannotBe) {
  for (const char* text : {"0", "1e9", "much", ""}) {
    EXPECT_THAT(LossScale::Create("fp16", text).status().message(),
                HasSubstr("expected auto, or a number from 1 to"))
        << text;
  }
  LossScale scale = *LossScale::Create("fp16", "auto");
  for (const std::vector<double>& state :
       std::vector<std::vector<double>>{{65536}, {0.5, 0}, {2, 2000}}) {
    EXPECT_FALSE(scale.ImportState(state).ok());
  }
  EXPECT_EQ(scale.scale(), LossScale::kFirst);
}

}  // namespace
}  // namespace deltapipe
