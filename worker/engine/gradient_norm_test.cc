#include "worker/engine/gradient_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace deltapipe {
namespace {

TEST(GradientNormTest, IsThatOfTheMeanGradientInFullPrecision) {
  GradientNorm norm;

  EXPECT_DOUBLE_EQ(norm.Update(true, 4.0, 9.0), 2.0);
  EXPECT_DOUBLE_EQ(norm.Update(true, 0.0, 0.0), 0.0);
}

TEST(GradientNormTest, DoesNotJumpAtTheSwitch) {
  GradientNorm norm;
  for (int step = 0; step < 100; ++step) norm.Update(true, 4.0, 8.0);

  // What is reconstructed is ten times as large, and is not asked.
  EXPECT_DOUBLE_EQ(norm.Update(false, 400.0, 8.0), 2.0);
  EXPECT_DOUBLE_EQ(norm.Update(false, 900.0, 16.0), std::sqrt(8.0));
}

TEST(GradientNormTest, IsThatOfTheReplicasIfNothingElseWasEverSeen) {
  EXPECT_DOUBLE_EQ(GradientNorm().Update(false, 400.0, 9.0), 3.0);
}

TEST(GradientNormTest, IsNotFiniteIfAGradientIsNotAndForgetsThatStep) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  GradientNorm norm;
  norm.Update(true, 4.0, 8.0);

  EXPECT_FALSE(std::isfinite(norm.Update(true, kNan, 8.0)));
  EXPECT_FALSE(std::isfinite(norm.Update(false, kInf, 8.0)));
  EXPECT_FALSE(std::isfinite(norm.Update(false, 4.0, kInf)));
  EXPECT_DOUBLE_EQ(norm.Update(false, 1.0, 8.0), 2.0);
}

}  // namespace
}  // namespace deltapipe
