#include "compression/kernels/largest_magnitude.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/float_cast.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(LargestMagnitudeTest, FindsTheLargestAtEveryPlaceAndSign) {
  std::mt19937 generator(1);
  for (const size_t count : {1, 2, 7, 16, 33, 64, 130}) {
    for (size_t place = 0; place < count; ++place) {
      // At an odd address.
      std::vector<float> values(count + 1);
      for (float& value : values) {
        value = BitsToFloat(generator() & 0xBFFFFFFFu);  // below 2
      }
      const float large = place % 2 == 0 ? 3.5f : -3.5f;
      values[place + 1] = large;
      ForEachVectorTarget([&] {
        ASSERT_EQ(LargestMagnitudeBits(absl::MakeSpan(values).subspan(1)),
                  FloatBits(3.5f));
      });
    }
  }
}

TEST(LargestMagnitudeTest, WhatIsNotFiniteIsAboveAllElse) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> values(100, std::numeric_limits<float>::max());
    EXPECT_LT(LargestMagnitudeBits(values), kInfinityBits);
    values[61] = bad;
    EXPECT_GE(LargestMagnitudeBits(values), kInfinityBits);
  }
  EXPECT_EQ(LargestMagnitudeBits({}), 0u);
  EXPECT_EQ(LargestMagnitudeBits({-0.0f}), 0u);
}

}  // namespace
}  // namespace deltapipe
