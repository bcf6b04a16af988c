#include "coordinator/cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/cli/table.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::StepSummary Step(int64_t index) {
  v1::StepSummary step;
  step.set_step(index);
  step.set_total_steps(1000);
  step.set_loss(2.0134);
  step.set_step_seconds(0.25);
  step.set_tokens_per_second(16384);
  step.set_learning_rate(8e-3);
  step.set_gradient_norm(1.5);
  step.set_activation_raw_bytes(9000000);
  step.set_activation_wire_bytes(1000000);
  step.set_gradient_raw_bytes(1000000);
  step.set_gradient_wire_bytes(1000000);
  return step;
}

TEST(ProgressTest, BarShowsEverythingWhereThereIsRoom) {
  Progress progress;
  progress.Add(Step(499));

  EXPECT_EQ(progress.Bar("text", 120),
            "text  [===============>              ]  500/1000  loss 2.013  "
            "16.4k tok/s   ETA 2:05   saved 8 MB     (5.0x)");
}

TEST(ProgressTest, BarDropsFactsFromTheEndWhereThereIsNot) {
  Progress progress;
  progress.Add(Step(499));

  const std::string narrow = progress.Bar("text", 60);

  EXPECT_LE(TextWidth(narrow), 60);
  EXPECT_THAT(narrow, HasSubstr("loss 2.013"));
  EXPECT_THAT(narrow, Not(HasSubstr("saved")));
  EXPECT_EQ(progress.Bar("text", 5), " 500/");
}

TEST(ProgressTest, EightyColumnsHoldTheBytesSaved) {
  Progress progress;
  progress.Add(Step(499));

  EXPECT_EQ(progress.Bar("text", 79),
            "text  [====>    ]  500/1000  loss 2.013  16.4k tok/s   ETA 2:05 "
            "  saved 8 MB");
}

TEST(ProgressTest, BarFitsEveryWidth) {
  Progress progress;
  progress.Add(Step(3));
  for (int columns = 0; columns < 200; ++columns) {
    EXPECT_LE(TextWidth(progress.Bar("a-name", columns)), columns);
  }
}

TEST(ProgressTest, FullBarHasNoHead) {
  Progress progress;
  progress.Add(Step(999));

  EXPECT_THAT(progress.Bar("t", 120),
              HasSubstr("[==============================] 1000/1000"));
}

TEST(ProgressTest, KeyValueLineHasOneTokenPerFact) {
  Progress progress;
  v1::StepSummary step = Step(0);
  step.set_compressed(true);
  step.set_validation_loss(1.75);
  progress.Add(step);

  EXPECT_EQ(progress.KeyValueLine(),
            "step=1/1000 loss=2.0134 validation_loss=1.7500 "
            "tokens_per_second=16384 step_seconds=0.250 gradient_norm=1.5 "
            "lr=0.008 compressed=yes eta_seconds=250 "
            "activation_wire_bytes=1000000 activation_ratio=9.0x "
            "gradient_wire_bytes=1000000 gradient_ratio=1.0x");
}

TEST(ProgressTest, EtaFollowsAMovingAverage) {
  Progress progress;
  progress.Add(Step(0));
  v1::StepSummary slow = Step(1);
  slow.set_step_seconds(1.25);
  progress.Add(slow);

  EXPECT_NEAR(progress.eta_seconds(), 998 * (0.9 * 0.25 + 0.1 * 1.25), 1e-9);
}

TEST(LinePacerTest, FirstAndLastStepAreAlwaysDue) {
  LinePacer pacer;

  EXPECT_TRUE(pacer.IsDue(Step(0), Nanos(0)));
  EXPECT_FALSE(pacer.IsDue(Step(1), std::chrono::milliseconds(1)));
  EXPECT_TRUE(pacer.IsDue(Step(999), std::chrono::milliseconds(2)));
}

TEST(LinePacerTest, DueAfterTwoSecondsOrTwentyStepsButNotTooOften) {
  LinePacer pacer;
  ASSERT_TRUE(pacer.IsDue(Step(0), Nanos(0)));

  EXPECT_FALSE(pacer.IsDue(Step(30), std::chrono::milliseconds(499)));
  EXPECT_TRUE(pacer.IsDue(Step(31), std::chrono::milliseconds(500)));
  EXPECT_FALSE(pacer.IsDue(Step(32), std::chrono::milliseconds(2499)));
  EXPECT_TRUE(pacer.IsDue(Step(33), std::chrono::milliseconds(2500)));
}

TEST(StepJsonTest, HoldsNumbersAndCountsStepsFromOne) {
  const Json object = StepJson(Step(0));

  EXPECT_EQ(object["event"], "step");
  EXPECT_EQ(object["step"], 1);
  EXPECT_EQ(object["loss"], 2.0134);
  EXPECT_TRUE(object["activation_wire_bytes"].is_number_integer());
  EXPECT_FALSE(object.contains("validation_loss"));
  EXPECT_EQ(object["faults"]["bad_checksums"], 0);
}

TEST(TextTest, ClockAndRatio) {
  EXPECT_EQ(ClockText(0), "0:00");
  EXPECT_EQ(ClockText(59.6), "1:00");
  EXPECT_EQ(ClockText(725), "12:05");
  EXPECT_EQ(ClockText(3723), "1:02:03");
  EXPECT_EQ(ClockText(-1), "-");
  EXPECT_EQ(RatioText(81, 10), "8.1x");
  EXPECT_EQ(RatioText(0, 10), "-");
}

}  // namespace
}  // namespace deltapipe
