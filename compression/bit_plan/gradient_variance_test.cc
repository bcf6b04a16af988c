#include "compression/bit_plan/gradient_variance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/bit_plan.h"
#include "compression/codec.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<float> Normal(size_t count, std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(*random);
  return values;
}

double SumOfGroupRanges(const std::vector<float>& values) {
  double sum = 0;
  for (size_t begin = 0; begin < values.size(); begin += kBitGroup) {
    const auto end =
        values.begin() + std::min<size_t>(begin + kBitGroup, values.size());
    const auto [low, high] = std::minmax_element(values.begin() + begin, end);
    sum += std::pow(static_cast<double>(*high) - *low, 2);
  }
  return sum;
}

double SumOfSquares(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return sum;
}

// X^T G for X of rows x inputs and G of rows x outputs.
std::vector<double> Product(const std::vector<float>& x,
                            const std::vector<float>& g, size_t rows) {
  const size_t inputs = x.size() / rows, outputs = g.size() / rows;
  std::vector<double> product(inputs * outputs);
  for (size_t row = 0; row < rows; ++row) {
    for (size_t i = 0; i < inputs; ++i) {
      const double value = x[row * inputs + i];
      for (size_t j = 0; j < outputs; ++j) {
        product[i * outputs + j] += value * g[row * outputs + j];
      }
    }
  }
  return product;
}

// 16 draws of 64 x 32 sums of 64 terms: the mean of the squared error has a
// standard deviation of about 1 %; seeds are fixed.
TEST(GradientVarianceTest, IsWhatTheGradientOfAProductIsSeenToHave) {
  constexpr size_t kRows = 64, kInputs = 64, kOutputs = 32;
  constexpr int kNumDraws = 16;
  std::mt19937 random(1);
  const std::vector<float> x = Normal(kRows * kInputs, &random);
  const std::vector<float> g = Normal(kRows * kOutputs, &random);
  const std::vector<double> exact = Product(x, g, kRows);
  SavedMeasurement measurement;
  measurement.tensor.shape = {kRows, kInputs};
  measurement.tensor.num_elements = kRows * kInputs;
  measurement.range_squares = SumOfGroupRanges(x);
  measurement.gradient_squares = SumOfSquares(g);
  measurement.gradient_elements = g.size();
  measurement.reader = "addmm";
  for (const int bits : {1, 2, 4, 8}) {
    SCOPED_TRACE(absl::StrCat(bits, " bits"));
    const auto codec = MakeCodec(GroupCodecText(bits)).value();
    std::vector<uint8_t> payload(codec->MaxPayloadBytes(x.size()));
    double squares = 0;

    for (int draw = 0; draw < kNumDraws; ++draw) {
      RandomKey key;
      key.seed = 100 + draw;
      std::vector<float> decoded(x.size());
      ASSERT_TRUE(codec->Encode(x, key, absl::MakeSpan(payload)).ok());
      ASSERT_TRUE(codec->Decode(payload, absl::MakeSpan(decoded)).ok());
      const std::vector<double> product = Product(decoded, g, kRows);
      for (size_t i = 0; i < exact.size(); ++i) {
        squares += std::pow(product[i] - exact[i], 2) / kNumDraws;
      }
    }

    // Values are not spread evenly between the only two levels of one bit.
    const double expected =
        QuantisationCost(GradientVariance(measurement), bits);
    EXPECT_NEAR(squares, expected, (bits == 1 ? 0.5 : 0.15) * expected);
  }
}

TEST(GradientVarianceTest, CountsPositionsOfImagesAndOfRows) {
  SavedTensor tensor;
  tensor.num_elements = 2 * 3 * 5 * 7;
  tensor.shape = {2, 3, 5, 7};
  EXPECT_EQ(NumPositions(tensor), 70);
  tensor.shape = {2, 15, 7};
  EXPECT_EQ(NumPositions(tensor), 30);
  tensor.shape = {};
  EXPECT_EQ(NumPositions(tensor), 1);
  tensor.shape = {210, 0};
  EXPECT_EQ(NumPositions(tensor), 1);
}

TEST(GradientVarianceTest, GrowsWithReuseInConvolutionsAlone) {
  SavedMeasurement measurement;
  measurement.tensor.shape = {2, 4, 16, 16};
  measurement.tensor.num_elements = 2048;
  measurement.range_squares = 3;
  measurement.gradient_squares = 5;
  measurement.gradient_elements = 1000;
  measurement.reader = "convolution";
  const double once = GradientVariance(measurement);
  measurement.reuse = 9;
  EXPECT_DOUBLE_EQ(GradientVariance(measurement), 9 * once);
  EXPECT_DOUBLE_EQ(once, 256.0 / 6 * 3 * 5 / 512);

  measurement.positions = 128;
  EXPECT_DOUBLE_EQ(GradientVariance(measurement), 4 * 9 * once);
  measurement.alignment = 1.5;
  EXPECT_DOUBLE_EQ(GradientVariance(measurement), 1.5 * 4 * 9 * once);

  measurement.alignment = 1;
  measurement.reader = "gelu";

  EXPECT_DOUBLE_EQ(GradientVariance(measurement), 256.0 / 6 * 3 * 5 / 1000);
}

TEST(GradientVarianceTest, WhatWasNotMeasuredGivesNoNumber) {
  for (const double bad : {kNan, kInfinity, -1.0}) {
    SavedMeasurement measurement;
    measurement.tensor.shape = {4, 4};
    measurement.tensor.num_elements = 16;
    measurement.gradient_elements = 16;
    measurement.range_squares = 1;
    measurement.gradient_squares = bad;
    EXPECT_TRUE(std::isnan(GradientVariance(measurement))) << bad;
    measurement.range_squares = bad;
    measurement.gradient_squares = 1;
    EXPECT_TRUE(std::isnan(GradientVariance(measurement))) << bad;
  }
  EXPECT_EQ(GradientVariance(SavedMeasurement()), 0);
}

}  // namespace
}  // namespace deltapipe
