#include "compression/kernels/log_moments.h"

#include <cfloat>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "compression/kernels/reference/log_moments.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(LogMomentsTest, Log2IsWithinItsBoundOverAllMagnitudes) {
  std::mt19937 generator(1);
  for (int i = 0; i < 200000; ++i) {
    const uint32_t bits = 1 + generator() % 0x7F7FFFFF;
    const float x = BitsToFloat(bits);
    const double exact = std::log2(static_cast<double>(x)) / kLog2Unit;
    ASSERT_LE(std::fabs(Log2Units(x) - exact), 0.6) << x;
  }
  EXPECT_EQ(Log2Units(1.0f), 0);
  EXPECT_EQ(Log2Units(0x1p-149f), -149 * 256);
  EXPECT_EQ(Log2Units(FLT_MAX), 128 * 256);
}

TEST(LogMomentsTest, ZerosAndWhatIsNotFiniteDoNotCount) {
  const float infinity = std::numeric_limits<float>::infinity();
  const LogMoments moments =
      LogMomentsOf({0.0f, -0.0f, 4.0f, -16.0f, infinity, -infinity,
                    std::numeric_limits<float>::quiet_NaN()});

  EXPECT_EQ(moments.count, 2);
  EXPECT_EQ(moments.Mean(), 3);
  EXPECT_EQ(moments.SquaredDeviations(), 2);
  EXPECT_EQ(LogMomentsOf({0.0f}).Mean(), 0);
  EXPECT_EQ(LogMomentsOf({}).SquaredDeviations(), 0);
}

TEST(LogMomentsTest, VectorKernelsGiveTheReferenceSums) {
  std::mt19937 generator(3);
  for (const size_t count : {0, 1, 15, 64, 1000, 70001}) {
    std::vector<float> values(count + 1);
    for (float& value : values) {
      value = BitsToFloat(generator());
      if (generator() % 8 == 0) value *= 1e-38f;
      if (generator() % 16 == 0) value = 0;
    }
    const auto unaligned = absl::MakeConstSpan(values).subspan(1);
    const LogMoments expected = reference::LogMomentsOf(unaligned);
    ForEachVectorTarget([&] {
      const LogMoments moments = LogMomentsOf(unaligned);
      ASSERT_EQ(moments.count, expected.count);
      ASSERT_EQ(moments.sum, expected.sum);
      ASSERT_EQ(moments.sum_squares, expected.sum_squares);
    });
  }
}

// 2^16 lognormal values: the mean's standard error is sigma / 256, that of the
// deviation sigma / 362; 6.2 of them are a false alarm in 10^9.
TEST(LogMomentsTest, FindsMuAndSigmaOfALognormal) {
  std::mt19937 generator(2);
  std::normal_distribution<double> normal;
  for (const double sigma : {0.5, 2.0, 4.0}) {
    std::vector<float> values(1 << 16);
    for (float& value : values) {
      value = static_cast<float>(std::exp(-3 + sigma * normal(generator)));
    }

    const LogMoments moments = LogMomentsOf(values);

    EXPECT_NEAR(moments.Mean() * std::log(2.0), -3, 6.2 * sigma / 256 + 1e-4);
    EXPECT_NEAR(
        std::sqrt(moments.SquaredDeviations() / (1 << 16)) * std::log(2.0),
        sigma, 6.2 * sigma / 362 + 1e-4);
  }
}

}  // namespace
}  // namespace deltapipe
