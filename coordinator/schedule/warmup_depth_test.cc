#include "coordinator/schedule/warmup_depth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

constexpr double kElements = 1024.0 * 1600;

/// GPT2-XL's stages over links that carry `forward_bits` and `backward_bits` an
/// element.
PipelineModel Gpt2Xl(double bits_per_second, double latency_seconds,
                     double forward_bits, double backward_bits) {
  PipelineModel model;
  model.stages.assign(8, {0.045, 0.135, 0, 0});
  LinkModel link;
  link.bits_per_second = bits_per_second;
  link.latency_seconds = latency_seconds;
  link.activation.bytes = kElements * forward_bits / 8;
  link.gradient.bytes = kElements * backward_bits / 8;
  model.links.assign(7, link);
  return model;
}

double StepSeconds(int depth, const PipelineModel& model,
                   const PipelineShape& shape) {
  Schedule schedule = ParseSchedule("1f1b").value();
  schedule.warmup_depth = depth;
  return Simulate(ProgramsOf(schedule, shape), model).value().step_seconds;
}

std::vector<int64_t> Limits(int64_t limit) {
  return std::vector<int64_t>(8, limit);
}

constexpr PipelineShape kShape = {8, 32};

Schedule Plain() { return ParseSchedule("1f1b").value(); }

TEST(ChooseWarmupDepthTest, FreeLinksNeedNoDepth) {
  const auto choice = ChooseWarmupDepth(Plain(), kShape,
                                        Gpt2Xl(0, 0, 4.125, 8.125), Limits(32));

  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->warmup_depth, 0);
  EXPECT_FALSE(choice->is_limited);
  EXPECT_DOUBLE_EQ(choice->step_seconds, choice->plain_step_seconds);
}

TEST(ChooseWarmupDepthTest, SlowLinksAreHiddenByHalfOfTheMicrobatches) {
  const PipelineModel model = Gpt2Xl(100e6, 0, 4.125, 8.125);

  const auto choice = ChooseWarmupDepth(Plain(), kShape, model, Limits(32));

  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_LE(8 + choice->warmup_depth, 16);
  EXPECT_GE(32 / choice->step_seconds, 3.4);
  EXPECT_GT(choice->plain_step_seconds, 1.5 * choice->step_seconds);
}

TEST(ChooseWarmupDepthTest, SmallestDepthWithinHalfAPercentOfTheBest) {
  const PipelineModel model = Gpt2Xl(300e6, 0, 4.125, 8.125);

  const auto choice = ChooseWarmupDepth(Plain(), kShape, model, Limits(32));

  ASSERT_TRUE(choice.ok()) << choice.status();
  double best = choice->step_seconds;
  for (int depth = 0; depth <= 24; ++depth) {
    best = std::min(best, StepSeconds(depth, model, kShape));
  }
  EXPECT_GE(32 / choice->step_seconds, 4.1);
  EXPECT_LE(choice->step_seconds, 1.005 * best);
  EXPECT_GT(StepSeconds(choice->warmup_depth - 1, model, kShape), 1.005 * best);
}

TEST(ChooseWarmupDepthTest, GoesBeyondHalfWhereThatPaysWell) {
  const PipelineModel model = Gpt2Xl(100e6, 0.05, 4.125, 8.125);

  const auto choice = ChooseWarmupDepth(Plain(), kShape, model, Limits(32));

  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_GT(8 + choice->warmup_depth, 16);
  EXPECT_LT(1.1 * choice->step_seconds, StepSeconds(8, model, kShape));
}

TEST(ChooseWarmupDepthTest, MemoryBoundsTheDepth) {
  const PipelineModel model = Gpt2Xl(100e6, 0, 4.125, 8.125);

  const auto choice = ChooseWarmupDepth(Plain(), kShape, model, Limits(11));

  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->warmup_depth, 3);
  EXPECT_TRUE(choice->is_limited);
}

TEST(ChooseWarmupDepthTest, LittleMemoryMeansFewerInFlightThanPlain) {
  const PipelineModel model = Gpt2Xl(100e6, 0, 4.125, 8.125);

  const auto choice = ChooseWarmupDepth(Plain(), kShape, model, Limits(3));

  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->warmup_depth, -5);
  EXPECT_TRUE(choice->is_limited);
  EXPECT_GT(choice->step_seconds, choice->plain_step_seconds);
}

TEST(ChooseWarmupDepthTest, OneStageOrOneMicrobatchHasNoChoice) {
  PipelineModel alone;
  alone.stages.assign(1, {1, 2, 0, 0});
  EXPECT_EQ(ChooseWarmupDepth(Plain(), {1, 4}, alone, {1}).value().warmup_depth,
            0);
  EXPECT_EQ(
      ChooseWarmupDepth(Plain(), {8, 1}, Gpt2Xl(1e6, 1, 32, 32), Limits(1))
          .value()
          .warmup_depth,
      0);
}

TEST(ChooseWarmupDepthTest, LongPipelinesAreSearchedInStrides) {
  PipelineModel model = Gpt2Xl(100e6, 0.05, 4.125, 8.125);
  model.stages.assign(32, model.stages[0]);
  model.links.assign(31, model.links[0]);

  const auto choice = ChooseWarmupDepth(Plain(), {32, 512}, model,
                                        std::vector<int64_t>(32, 512));

  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_GT(choice->plain_step_seconds, 1.5 * choice->step_seconds);
}

TEST(ChooseWarmupDepthTest, NoRoomForOneMicrobatchIsRefused) {
  EXPECT_EQ(ChooseWarmupDepth(Plain(), kShape, Gpt2Xl(0, 0, 4, 8), Limits(0))
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
