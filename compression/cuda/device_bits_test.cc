// DeviceBits by the kernels of CUDA, run on the host, against plain loops.
#include "compression/cuda/device_bits.h"

#include <cfloat>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/cuda/testing/host_launcher.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr int64_t kCounts[] = {1, 7, 8, 9, 63, 64, 65, 1023, 1024, 5001};

TEST(DeviceBitsTest, BitsAreThoseOfAPlainLoopAndComeBack) {
  const auto kernels = MakeHostLaunchedBits();
  for (const int64_t count : kCounts) {
    SCOPED_TRACE(absl::StrCat("seed 5, count ", count));
    std::mt19937 random(5);
    std::vector<uint8_t> bools(count), expected((count + 7) / 8 + 1, 0);
    expected.back() = 0xEE;
    for (int64_t i = 0; i < count; ++i) {
      bools[i] = random() % 3 == 0;
      expected[i / 8] |= static_cast<uint8_t>(bools[i] << (i % 8));
    }
    std::vector<uint8_t> bits(expected.size(), 0xEE);
    std::vector<uint8_t> restored(count + 1, 0xEE);

    ASSERT_TRUE(
        kernels->PackBits(bools.data(), count, bits.data(), nullptr).ok());
    ASSERT_TRUE(
        kernels->UnpackBits(bits.data(), count, restored.data(), nullptr).ok());

    EXPECT_EQ(bits, expected);
    bools.push_back(0xEE);
    EXPECT_EQ(restored, bools);
  }
}

TEST(DeviceBitsTest, ZerosAreRestoredAndWhatWasNotZeroStaysAboveIt) {
  const auto kernels = MakeHostLaunchedBits();
  for (const int64_t count : kCounts) {
    SCOPED_TRACE(absl::StrCat("seed 6, count ", count));
    std::mt19937 random(6);
    std::vector<float> values(count), decoded(count + 1, 7);
    for (int64_t i = 0; i < count; ++i) {
      values[i] = random() % 2 == 0 ? 0.0f : 1e-3f * (random() % 9 + 1);
      decoded[i] = static_cast<int>(random() % 3) - 1.0f;
    }
    const std::vector<float> before = decoded;
    std::vector<uint8_t> bits((count + 7) / 8);

    ASSERT_TRUE(
        kernels->PackNonzeros(values.data(), count, bits.data(), nullptr).ok());
    ASSERT_TRUE(
        kernels->RestoreZeros(bits.data(), count, decoded.data(), nullptr)
            .ok());

    for (int64_t i = 0; i < count; ++i) {
      const float expected = values[i] == 0  ? 0.0f
                             : before[i] > 0 ? before[i]
                                             : FLT_MIN;
      ASSERT_EQ(decoded[i], expected) << i;
    }
    EXPECT_EQ(decoded[count], 7);
  }
}

TEST(DeviceBitsTest, TensorsWithValuesThatAreNotFiniteAreCountedOnceEach) {
  const auto kernels = MakeHostLaunchedBits();
  uint32_t words[2] = {0, 0};
  uint32_t expected = 0;
  for (const float odd : {std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::quiet_NaN(), FLT_MAX}) {
    for (const int64_t count : kCounts) {
      // At the end, and at the beginning of the last run as well.
      std::vector<float> values(count, -1.0f);
      values[count - 1] = odd;
      values[count / 1024 * 1024 == count ? 0 : count / 1024 * 1024] = odd;
      if (odd != FLT_MAX) ++expected;

      ASSERT_TRUE(
          kernels->CountIfNotFinite(values.data(), count, words, nullptr).ok());

      ASSERT_EQ(words[0], 0u);
      ASSERT_EQ(words[1], expected) << odd << ", count " << count;
    }
  }
}

}  // namespace
}  // namespace deltapipe
