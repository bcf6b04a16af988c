#include "worker/saved_activations/bit_mask.h"

#include <cfloat>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

class BitMaskTest : public ::testing::TestWithParam<int> {
 protected:
  std::mt19937 random_{static_cast<unsigned>(GetParam()) + 1};
  const size_t size_ = static_cast<size_t>(GetParam());
};

TEST_P(BitMaskTest, BoolsComeBackAndUnusedBitsAreZero) {
  std::vector<uint8_t> bools(size_);
  for (uint8_t& value : bools) value = random_() & 1;
  std::vector<uint8_t> bits(static_cast<size_t>(BitMaskBytes(GetParam())), 255);

  PackBits(bools, absl::MakeSpan(bits));
  std::vector<uint8_t> restored(size_, 7);
  UnpackBits(bits, absl::MakeSpan(restored));

  EXPECT_EQ(restored, bools);
  if (size_ % 8 != 0) {
    EXPECT_EQ(bits.back() >> (size_ % 8), 0);
  }
}

TEST_P(BitMaskTest, ZerosAndOnlyZerosAreRestored) {
  std::vector<float> values(size_);
  for (float& value : values) {
    value = random_() % 2 == 0 ? 0.0f : static_cast<float>(random_() % 9);
  }
  std::vector<uint8_t> bits(static_cast<size_t>(BitMaskBytes(GetParam())));
  PackNonzeros(values, absl::MakeSpan(bits));
  std::vector<float> coarse(size_);
  for (size_t i = 0; i < size_; ++i) {
    coarse[i] = random_() % 3 == 0 ? 0.0f : 4.0f;
  }
  const std::vector<float> before = coarse;

  RestoreZeros(bits, absl::MakeSpan(coarse));

  for (size_t i = 0; i < size_; ++i) {
    const float expected =
        values[i] == 0 ? 0.0f : (before[i] == 0 ? FLT_MIN : before[i]);
    EXPECT_EQ(coarse[i], expected) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, BitMaskTest,
                         ::testing::Values(0, 1, 7, 8, 9, 64, 1000, 1023));

}  // namespace
}  // namespace deltapipe
