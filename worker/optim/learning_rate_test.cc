#include "worker/optim/learning_rate.h"

#include <cmath>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Pointwise;

std::vector<double> Rates(const LearningRateOptions& options,
                          int64_t total_steps, int64_t count) {
  std::vector<double> rates;
  for (int64_t step = 0; step < count; ++step) {
    rates.push_back(LearningRate(options, step, total_steps));
  }
  return rates;
}

MATCHER(IsClose, "") {
  return std::abs(std::get<0>(arg) - std::get<1>(arg)) < 1e-15;
}

TEST(LearningRateTest, ConstantAfterALinearWarmUp) {
  const LearningRateOptions options = {0.8, 0.1, 4,
                                       LearningRateDecay::kConstant};

  EXPECT_THAT(Rates(options, 7, 7),
              Pointwise(IsClose(), {0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.8}));
}

TEST(LearningRateTest, LinearFallsFromPeakToFinal) {
  const LearningRateOptions options = {1.0, 0.2, 2, LearningRateDecay::kLinear};

  EXPECT_THAT(
      Rates(options, 7, 9),
      Pointwise(IsClose(), {0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2}));
}

TEST(LearningRateTest, CosineFallsFromPeakToFinal) {
  const LearningRateOptions options = {1.0, 0.0, 0, LearningRateDecay::kCosine};

  const double half = std::sqrt(0.5) / 2;
  EXPECT_THAT(
      Rates(options, 5, 6),
      Pointwise(IsClose(), {1.0, 0.5 + half, 0.5, 0.5 - half, 0.0, 0.0}));
}

TEST(LearningRateTest, WithoutWarmUpTheFirstStepHasThePeak) {
  for (const LearningRateDecay decay :
       {LearningRateDecay::kConstant, LearningRateDecay::kLinear,
        LearningRateDecay::kCosine}) {
    EXPECT_EQ(LearningRate({0.3, 0.0, 0, decay}, 0, 10), 0.3);
  }
}

TEST(LearningRateTest, NoStepOfAShortRunHasRateZeroBeforeItsEnd) {
  const LearningRateOptions options = {0.3, 0.0, 50,
                                       LearningRateDecay::kCosine};

  EXPECT_THAT(Rates(options, 10, 10), Each(::testing::Gt(0.0)));
  EXPECT_EQ(LearningRate({0.3, 0.0, 0, LearningRateDecay::kLinear}, 0, 1), 0.3);
}

TEST(LearningRateTest, ParsesItsNames) {
  EXPECT_EQ(*ParseLearningRateDecay("constant"), LearningRateDecay::kConstant);
  EXPECT_EQ(*ParseLearningRateDecay("linear"), LearningRateDecay::kLinear);
  EXPECT_EQ(*ParseLearningRateDecay("cosine"), LearningRateDecay::kCosine);

  EXPECT_THAT(ParseLearningRateDecay("cosin").status().ToString(),
              HasSubstr("expected constant, linear or cosine, got \"cosin\""));
}

}  // namespace
}  // namespace deltapipe
