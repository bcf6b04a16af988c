#include "coordinator/cli/arm_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

/// Steps of 0.5 s (the first ones far slower) with 1,000 bytes of activations
/// and, once compressed, 10 instead of 100 bytes of gradients.
std::vector<v1::StepSummary> Steps(int count, int compressed_from) {
  std::vector<v1::StepSummary> steps;
  int64_t gradient_bytes = 0;
  for (int i = 0; i < count; ++i) {
    v1::StepSummary step;
    const bool is_compressed = i >= compressed_from;
    gradient_bytes += is_compressed ? 10 : 100;
    step.set_step(i);
    step.set_step_seconds(i < 2 ? 9 : is_compressed ? 0.25 : 0.5);
    step.set_loss(5.0 - 0.1 * i);
    step.set_compressed(is_compressed);
    step.set_activation_wire_bytes(1000 * (i + 1));
    step.set_gradient_wire_bytes(gradient_bytes);
    steps.push_back(step);
  }
  return steps;
}

TEST(ArmFiguresTest, LeavesOutTheFillingStepsAndTakesTheMedian) {
  const ArmFigures figures = MeasureArm("plain", Steps(10, 99), 4096);

  EXPECT_EQ(figures.steps, 8);
  EXPECT_EQ(figures.seconds_per_step, 0.5);
  EXPECT_EQ(figures.tokens_per_second, 8192);
  EXPECT_EQ(figures.activation_bytes_per_step, 1000);
  EXPECT_EQ(figures.gradient_bytes_per_step, 100);
  EXPECT_NEAR(figures.loss, 4.55, 1e-12);
}

TEST(ArmFiguresTest, PhasesAreMeasuredApart) {
  const std::vector<v1::StepSummary> steps = Steps(20, 10);

  const ArmFigures early = MeasureArm("a", StepsOfPhase(steps, false), 4096);
  const ArmFigures late = MeasureArm("b", StepsOfPhase(steps, true), 4096);

  EXPECT_EQ(early.seconds_per_step, 0.5);
  EXPECT_EQ(early.gradient_bytes_per_step, 100);
  EXPECT_EQ(late.steps, 5);
  EXPECT_EQ(late.seconds_per_step, 0.25);
  EXPECT_EQ(late.gradient_bytes_per_step, 10);
}

TEST(ArmFiguresTest, TooFewStepsGiveZerosNotNonsense) {
  const ArmFigures none = MeasureArm("none", {}, 4096);
  const ArmFigures few = MeasureArm("few", Steps(2, 99), 4096);

  EXPECT_EQ(none.loss, 0);
  EXPECT_EQ(few.seconds_per_step, 0);
  EXPECT_EQ(few.tokens_per_second, 0);
  EXPECT_EQ(few.activation_bytes_per_step, 0);
}

TEST(ArmFiguresTest, TableComparesWithTheFirstArm) {
  const std::vector<v1::StepSummary> steps = Steps(20, 10);

  EXPECT_EQ(
      ArmTable({MeasureArm("uncompressed", Steps(10, 99), 4096),
                MeasureArm("compressed", StepsOfPhase(steps, true), 4096)}),
      "              steps  s/step  tokens/s  speed  activations/step  "
      "gradients/step   loss\n"
      "uncompressed      8   0.500     8,192  1.00x              1 kB  "
      "         100 B  4.550\n"
      "compressed        5   0.250    16,384  2.00x              1 kB  "
      "          10 B  3.300\n");
}

}  // namespace
}  // namespace deltapipe
