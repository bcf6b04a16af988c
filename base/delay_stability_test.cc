#include "base/delay_stability.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

/// Whether gradient descent on lambda x^2 / 2 stays bounded, done step by step.
bool Descends(double rate_lambda, int delay, double momentum,
              MomentumDelay form, double look_ahead) {
  constexpr int kSteps = 60'000;
  std::deque<double> x(static_cast<size_t>(delay) + 1, 1.0);  // oldest first
  std::deque<double> v(static_cast<size_t>(delay) + 1, 0.0);
  double early = 0;
  double late = 0;
  for (int step = 0; step < kSteps; ++step) {
    const double former =
        form == MomentumDelay::kShifted ? v.front() : v.back();
    const double downhill = -rate_lambda * x.front();
    const double next = momentum * former + downhill;
    x.push_back(x.back() + next + look_ahead * (next - former));
    v.push_back(next);
    x.pop_front();
    v.pop_front();
    double* const largest = step < kSteps / 2 ? &early : &late;
    *largest = std::max(*largest, std::abs(x.back()));
    if (late > 1e100) return false;
  }
  return late < early;
}

struct Form {
  MomentumDelay momenta;
  double look_ahead;
};

class ThresholdTest
    : public ::testing::TestWithParam<std::tuple<int, double, Form>> {};

TEST_P(ThresholdTest, DelayedDescentOnAQuadraticDivergesThere) {
  const auto [delay, momentum, form] = GetParam();
  const auto [momenta, ahead] = form;
  const double threshold = LargestStableRate(delay, momentum, momenta, ahead);

  EXPECT_TRUE(Descends(0.99 * threshold, delay, momentum, momenta, ahead))
      << threshold;
  EXPECT_FALSE(Descends(1.01 * threshold, delay, momentum, momenta, ahead))
      << threshold;
}

INSTANTIATE_TEST_SUITE_P(
    Delays, ThresholdTest,
    ::testing::Combine(::testing::Range(1, 17),
                       ::testing::Values(0.0, 0.5, 0.9),
                       ::testing::Values(Form{MomentumDelay::kStandard, 0},
                                         Form{MomentumDelay::kShifted, 0},
                                         Form{MomentumDelay::kStandard, 0.9},
                                         Form{MomentumDelay::kStandard, 2},
                                         Form{MomentumDelay::kStandard, 17})));

TEST(LargestStableRateTest, WithoutMomentumItIsTheClosedForm) {
  for (int delay = 0; delay <= 64; ++delay) {
    for (const MomentumDelay form :
         {MomentumDelay::kStandard, MomentumDelay::kShifted}) {
      EXPECT_NEAR(LargestStableRate(delay, 0, form), 2 * DelayRateFactor(delay),
                  1e-9)
          << delay;
    }
  }
}

TEST(LargestStableRateTest, ADelayOfOneHasClosedFormsForBothMomenta) {
  for (const double momentum : {0.1, 0.5, 0.9, 0.99}) {
    EXPECT_NEAR(LargestStableRate(1, momentum, MomentumDelay::kStandard),
                1 - momentum, 1e-9);
    EXPECT_NEAR(LargestStableRate(1, momentum, MomentumDelay::kShifted),
                1 - momentum * momentum, 1e-9);
  }
}

TEST(LargestStableRateTest, ALookAheadBearsMoreTheLongerTheMomentum) {
  // As rates of an average: eta / (1 - m).
  const auto of_average = [](double momentum, double ahead) {
    return LargestStableRate(1, momentum, MomentumDelay::kStandard, ahead) /
           (1 - momentum);
  };
  EXPECT_NEAR(of_average(0.9, 0), 1, 1e-6);
  EXPECT_NEAR(of_average(0.9, 0.9), 2.53, 0.01);  // Nesterov's form
  EXPECT_NEAR(of_average(0.99, 0.99), 9.1, 0.1);
  EXPECT_NEAR(of_average(0.9, 2), 2.870, 0.005);
  EXPECT_NEAR(of_average(0.97, 2), 8.781, 0.005);
  EXPECT_NEAR(of_average(0.99, 2), 25.48, 0.02);
}

TEST(DefaultLookAheadTest, IsFromTheGradientsWeightsToThoseItMakes) {
  EXPECT_EQ(DefaultLookAhead("adamw", 1), 2);
  EXPECT_EQ(DefaultLookAhead("adam", 1), 2);
  EXPECT_EQ(DefaultLookAhead("adamw", 0), 0);
  EXPECT_EQ(DefaultLookAhead("sgd", 1), 0);
  EXPECT_EQ(DefaultLookAhead("lamb", 1), 0);
}

TEST(LargestStableRateTest, WithoutDelayBothMomentaAreHeavyBall) {
  for (const MomentumDelay form :
       {MomentumDelay::kStandard, MomentumDelay::kShifted}) {
    EXPECT_NEAR(LargestStableRate(0, 0.9, form), 3.8, 1e-9);
  }
}

TEST(LargestStableRateTest, PublishedFiguresOfLongerDelays) {
  // With momentum 0.9, standard; and shifted, as eta / (1 - m).
  EXPECT_NEAR(LargestStableRate(2, 0.9, MomentumDelay::kStandard), 0.0512,
              5e-5);
  EXPECT_NEAR(LargestStableRate(4, 0.9, MomentumDelay::kStandard), 0.0265,
              5e-5);
  EXPECT_NEAR(LargestStableRate(4, 0.9, MomentumDelay::kShifted) / 0.1, 0.49,
              5e-3);
  EXPECT_NEAR(LargestStableRate(8, 0.9, MomentumDelay::kShifted) / 0.1, 0.25,
              6e-3);
}

TEST(DelayRateFactorTest, FollowsTheRule) {
  EXPECT_DOUBLE_EQ(DelayRateFactor(0), 1);
  EXPECT_NEAR(DelayRateFactor(1), 0.5, 1e-12);
  EXPECT_NEAR(DelayRateFactor(2), 0.309, 5e-4);
  EXPECT_NEAR(DelayRateFactor(16), 0.0476, 5e-5);
}

}  // namespace
}  // namespace deltapipe
