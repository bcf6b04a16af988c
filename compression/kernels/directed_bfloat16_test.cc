#include "compression/kernels/directed_bfloat16.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// The bf16 after `value` towards +infinity.
float Next(float value) {
  float next = value;
  do {
    next = std::nextafter(next, HUGE_VALF);
  } while ((FloatBits(next) & 0xFFFFu) != 0);
  return next;
}

TEST(DirectedBFloat16Test, AreTheNeighboursOnEitherSide) {
  std::mt19937_64 generator(1);
  for (int i = 0; i < 2000; ++i) {
    const auto bits = static_cast<uint32_t>(generator());
    // All exponents below infinity, often a bf16 or a float as it is.
    double value =
        BitsToFloat((bits & 0xBFFFFFFFu) | (i % 5 == 0 ? 0x20000000u : 0));
    if (i % 3 == 0) value = BitsToFloat(bits & 0xBFFF0000u);
    if (i % 7 == 0) value *= 1 + 0x1p-40;

    const float above = BFloat16ToFloat(BFloat16AtLeast(value));
    const float below = BFloat16ToFloat(BFloat16AtMost(value));

    ASSERT_LE(below, value);
    ASSERT_GE(above, value);
    ASSERT_TRUE(above == below || above == Next(below)) << value;
  }
}

TEST(DirectedBFloat16Test, StayFinite) {
  EXPECT_EQ(BFloat16AtLeast(1e300), kLargestBFloat16);
  EXPECT_EQ(BFloat16AtMost(-1e300), kLargestBFloat16 | 0x8000);
  EXPECT_EQ(BFloat16AtMost(FLT_MAX), kLargestBFloat16);
  EXPECT_EQ(BFloat16AtLeast(0), 0);
  EXPECT_EQ(BFloat16AtMost(0), 0);
  EXPECT_EQ(BFloat16AtLeast(1e-60), 1);
  EXPECT_EQ(BFloat16AtLeast(-1e-60), 0x8000);
}

}  // namespace
}  // namespace deltapipe
