#include "compression/codecs/minifloat_split.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// The median of the largest of 128 normal numbers: Phi(z)^128 = 1/2.
constexpr double kTop = 2.5491;

std::vector<double> Magnitudes(int exponent_bits, int mantissa_bits) {
  const int top = (1 << exponent_bits) - 1;
  const int fractions = 1 << mantissa_bits;
  std::vector<double> magnitudes;
  for (int e = 0; e <= top; ++e) {
    for (int f = 0; f < fractions; ++f) {
      const double fraction = static_cast<double>(f) / fractions;
      magnitudes.push_back(e > 0 ? std::ldexp(1 + fraction, e - top)
                                 : std::ldexp(fraction, 1 - top));
    }
  }
  return magnitudes;
}

// E|x - Q(x)| / |x| for the nearest magnitude, ln|x| ~ N(0, sigma^2) below the
// block's maximum, by the midpoint rule.
double RelativeError(int exponent_bits, int mantissa_bits, double sigma) {
  const std::vector<double> magnitudes =
      Magnitudes(exponent_bits, mantissa_bits);
  constexpr int kPoints = 3000;
  constexpr double kBottom = -7;
  double sum = 0, weights = 0;
  size_t nearest = 0;
  for (int i = 0; i < kPoints; ++i) {
    const double t = kBottom + (kTop - kBottom) * (i + 0.5) / kPoints;
    const double x = magnitudes.back() * std::exp(sigma * (t - kTop));
    while (nearest + 1 < magnitudes.size() &&
           x >= (magnitudes[nearest] + magnitudes[nearest + 1]) / 2) {
      ++nearest;
    }
    const double weight = std::exp(-t * t / 2);
    weights += weight;
    sum += weight * std::fabs(x - magnitudes[nearest]) / x;
  }
  return sum / weights;
}

TEST(MinifloatSplitTest, TheTableHasTheSplitsOfLeastExpectedRelativeError) {
  for (int bits = kMinSplitBits; bits <= kMaxSplitBits; ++bits) {
    for (double sigma = 0.1; sigma < 14; sigma += sigma < 2 ? 0.06 : 0.3) {
      double least = std::numeric_limits<double>::infinity();
      for (int e = 1; e < bits; ++e) {
        least = std::min(least, RelativeError(e, bits - 1 - e, sigma));
      }
      const int chosen = ChooseExponentBits(bits, sigma);
      // At a threshold two splits are equal: the table has two digits.
      EXPECT_LE(RelativeError(chosen, bits - 1 - chosen, sigma), 1.01 * least)
          << bits << " bits, sigma " << sigma << ": " << chosen;
    }
  }
}

TEST(MinifloatSplitTest, KnownBestFormatsOfNeuralGradients) {
  EXPECT_EQ(ChooseExponentBits(4, 2.0), 3);
  EXPECT_EQ(ChooseExponentBits(4, 5.0), 3);
  EXPECT_EQ(ChooseExponentBits(5, 2.0), 4);
  EXPECT_EQ(ChooseExponentBits(6, 2.5), 4);
  EXPECT_EQ(ChooseExponentBits(6, 4.0), 5);
  EXPECT_EQ(ChooseExponentBits(8, 2.0), 4);
  EXPECT_EQ(ChooseExponentBits(8, 3.0), 5);
}

TEST(MinifloatSplitTest, SpreadIsWithinBlocksAndIgnoresTheirScales) {
  std::mt19937 generator(4);
  std::normal_distribution<double> normal;
  std::vector<float> values(1 << 14);
  for (size_t i = 0; i < values.size(); ++i) {
    const double scale = i / 128 % 2 == 0 ? 1e-6 : 1e6;
    values[i] = static_cast<float>(scale * std::exp(2 * normal(generator)));
    if (i % 9 == 0) values[i] = 0;
  }
  values[200] = std::numeric_limits<float>::infinity();

  // 6.2 standard errors of sigma / sqrt(2 n).
  EXPECT_NEAR(LogSpreadWithinBlocks(values, 128), 2, 6.2 * 2 / 170);
  EXPECT_EQ(LogSpreadWithinBlocks(values, 0), 0);
  values[200] = 1;
  EXPECT_GT(LogSpreadWithinBlocks(values, 0), 13);
  EXPECT_EQ(LogSpreadWithinBlocks({3.0f}, 128), 0);
}

}  // namespace
}  // namespace deltapipe
