#include "base/float_cast.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace deltapipe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargestFloat16 = 65504.0f;

bool IsNaN16(uint32_t bits, uint32_t exponent_mask) {
  return (bits & 0x7FFFu) > exponent_mask;
}

TEST(BFloat16Test, EveryValueRoundTrips) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const uint16_t back =
        FloatToBFloat16(BFloat16ToFloat(static_cast<uint16_t>(bits)));
    // NaN comes back quiet, with its sign.
    const uint32_t expected = IsNaN16(bits, 0x7F80) ? bits | 0x0040u : bits;
    ASSERT_EQ(back, expected) << std::hex << bits;
  }
}

TEST(Float16Test, EveryValueRoundTrips) {
  for (uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const uint16_t back =
        FloatToFloat16(Float16ToFloat(static_cast<uint16_t>(bits)));
    const uint32_t expected =
        IsNaN16(bits, 0x7C00) ? (bits & 0x8000u) | 0x7E00u : bits;
    ASSERT_EQ(back, expected) << std::hex << bits;
  }
}

/// Walks all neighbours of a 16-bit type: the midpoint between them must go to
/// the even one, a hair more or less to the nearer one.
template <typename ToFloat, typename FromFloat>
void CheckRounding(uint16_t largest, ToFloat to_float, FromFloat from_float) {
  for (uint32_t bits = 0; bits < largest; ++bits) {
    const float low = to_float(static_cast<uint16_t>(bits));
    const float high = to_float(static_cast<uint16_t>(bits + 1));
    const float middle = low + (high - low) / 2;
    if (middle == low) continue;  // no fp32 value lies between them
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(from_float(middle), even) << std::hex << bits;
    ASSERT_EQ(from_float(-middle), even | 0x8000u) << std::hex << bits;
    ASSERT_EQ(from_float(std::nextafterf(middle, 0.0f)), bits)
        << std::hex << bits;
    ASSERT_EQ(from_float(std::nextafterf(middle, kInfinity)), bits + 1)
        << std::hex << bits;
  }
}

TEST(BFloat16Test, RoundsToNearestTiesToEven) {
  CheckRounding(0x7F7F, BFloat16ToFloat, FloatToBFloat16);
}

TEST(Float16Test, RoundsToNearestTiesToEven) {
  CheckRounding(0x7BFF, Float16ToFloat, FloatToFloat16);
}

TEST(BFloat16Test, FiniteValuesSaturateInsteadOfOverflowing) {
  const float largest = std::numeric_limits<float>::max();

  EXPECT_EQ(FloatToBFloat16(largest), 0x7F7F);
  EXPECT_EQ(FloatToBFloat16(-largest), 0xFF7F);
  EXPECT_EQ(FloatToBFloat16(3.4e38f), 0x7F7F);
  EXPECT_TRUE(std::isfinite(BFloat16ToFloat(FloatToBFloat16(largest))));
}

TEST(Float16Test, FiniteValuesSaturateInsteadOfOverflowing) {
  EXPECT_EQ(FloatToFloat16(65519.996f), 0x7BFF);
  EXPECT_EQ(FloatToFloat16(65520.0f), 0x7BFF);
  EXPECT_EQ(FloatToFloat16(1e38f), 0x7BFF);
  EXPECT_EQ(FloatToFloat16(-1e38f), 0xFBFF);
  EXPECT_EQ(Float16ToFloat(FloatToFloat16(1e38f)), kLargestFloat16);
}

TEST(BFloat16Test, KeepsInfinityNaNAndSignedZero) {
  EXPECT_EQ(FloatToBFloat16(kInfinity), 0x7F80);
  EXPECT_EQ(FloatToBFloat16(-kInfinity), 0xFF80);
  EXPECT_EQ(FloatToBFloat16(-0.0f), 0x8000);
  // A NaN whose payload lies in the low half must not become infinity.
  EXPECT_TRUE(
      std::isnan(BFloat16ToFloat(FloatToBFloat16(BitsToFloat(0x7F800001u)))));
}

TEST(Float16Test, KeepsInfinityNaNAndSignedZero) {
  EXPECT_EQ(FloatToFloat16(kInfinity), 0x7C00);
  EXPECT_EQ(FloatToFloat16(-kInfinity), 0xFC00);
  EXPECT_EQ(FloatToFloat16(-0.0f), 0x8000);
  EXPECT_TRUE(
      std::isnan(Float16ToFloat(FloatToFloat16(BitsToFloat(0x7F800001u)))));
}

TEST(Float16Test, SubnormalsAndUnderflow) {
  EXPECT_EQ(FloatToFloat16(0x1.0p-24f), 1);  // the smallest
  EXPECT_EQ(FloatToFloat16(0x1.0p-25f), 0);  // a tie, to even
  EXPECT_EQ(FloatToFloat16(0x1.8p-25f), 1);
  EXPECT_EQ(FloatToFloat16(0x1.8p-24f), 2);         // a tie, to even
  EXPECT_EQ(FloatToFloat16(0x1.FFFp-15f), 0x0400);  // rounds up to a normal
}

}  // namespace
}  // namespace deltapipe
