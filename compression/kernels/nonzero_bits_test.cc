#include "compression/kernels/nonzero_bits.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

// `share` of the values are not zero; zeros of either sign.
std::vector<float> Values(size_t count, double share, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) {
    const bool is_zero = (random() % 1000) >= 1000 * share;
    value = is_zero ? (random() % 2 == 0 ? 0.0f : -0.0f) : normal(random);
  }
  return values;
}

TEST(NonzeroBitsTest, SubnormalsAndWhatIsNotFiniteAreNoZeros) {
  ForEachVectorTarget([] {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> values = {0,         1e-45f, -0.0f, nan, -2,
                                       -infinity, 0,      0,     0,   3};
    uint8_t bits[2] = {0xFF, 0xFF};
    std::vector<float> kept(values.size() + kNonzeroPadding);

    const TakenNonzero taken = TakeNonzero(values, bits, kept.data());

    EXPECT_THAT(bits, ElementsAre(0b00111010, 0b00000010));
    EXPECT_EQ(taken.count, 5);
    EXPECT_TRUE(taken.has_negative);
    kept.resize(5);
    EXPECT_EQ(kept[0], 1e-45f);
    EXPECT_TRUE(std::isnan(kept[1]));
    EXPECT_THAT(std::vector<float>(kept.begin() + 2, kept.end()),
                ElementsAre(-2, -infinity, 3));
  });
}

TEST(NonzeroBitsTest, EveryTargetTakesWhatALoopTakesAndPutsItBack) {
  for (const size_t count :
       {0, 1, 7, 8, 15, 63, 64, 65, 127, 128, 1000, 4099}) {
    for (const double share : {0.0, 0.01, 0.5, 0.99, 1.0}) {
      SCOPED_TRACE(absl::StrCat(count, " values, ", share));
      const std::vector<float> storage = Values(count + 1, share, 3);
      const auto values = absl::MakeConstSpan(storage).subspan(1);
      std::vector<uint8_t> expected_bits(NonzeroBytes(count));
      std::vector<float> expected;
      for (size_t i = 0; i < count; ++i) {
        if (values[i] == 0) continue;
        expected_bits[i / 8] |= 1 << (i % 8);
        expected.push_back(values[i]);
      }

      ForEachVectorTarget([&] {
        std::vector<uint8_t> bits(NonzeroBytes(count), 0xFF);
        std::vector<float> kept(count + kNonzeroPadding);
        const TakenNonzero taken =
            TakeNonzero(values, bits.data(), kept.data());
        std::vector<float> out(count, -1);
        SpreadNonzero(bits.data(), kept.data(), absl::MakeSpan(out));

        EXPECT_EQ(bits, expected_bits);
        ASSERT_EQ(taken.count, expected.size());
        EXPECT_EQ(CountNonzero(bits.data(), count), taken.count);
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), kept.begin()));
        for (size_t i = 0; i < count; ++i) {
          ASSERT_EQ(out[i], values[i]);
          ASSERT_FALSE(out[i] == 0 && std::signbit(out[i]));
        }
      });
    }
  }
}

TEST(NonzeroBitsTest, NegativesAreSeenWhereverTheyAreButNotInZeros) {
  ForEachVectorTarget([] {
    for (size_t at = 0; at < 150; ++at) {
      std::vector<float> values(150, 1.0f);
      std::vector<uint8_t> bits(NonzeroBytes(150));
      std::vector<float> kept(150 + kNonzeroPadding);
      values[at] = -0.0f;
      EXPECT_FALSE(TakeNonzero(values, bits.data(), kept.data()).has_negative);
      values[at] = -1e-45f;
      EXPECT_TRUE(TakeNonzero(values, bits.data(), kept.data()).has_negative);
    }
  });
}

TEST(NonzeroBitsTest, LostSignsBecomeTheSmallestNormal) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ForEachVectorTarget([&] {
    for (const size_t count : {1, 7, 8, 16, 33}) {
      std::vector<float> positive(count), mixed(count);
      std::vector<uint8_t> negative(NonzeroBytes(count));
      const float values[] = {1e-45f, -1e-45f, 0.0f, -0.0f, 3, -3, nan, -nan};
      const float expected[] = {1e-45f, FLT_MIN, FLT_MIN, FLT_MIN, 3, FLT_MIN};
      const float flipped[] = {-FLT_MIN, -1e-45f,  -FLT_MIN,
                               -FLT_MIN, -FLT_MIN, -3};
      for (size_t i = 0; i < count; ++i) positive[i] = values[i % 8];
      mixed = positive;
      for (size_t i = 0; i < count; i += 8) negative[i / 8] = 0xFF;

      KeepSigns(nullptr, absl::MakeSpan(positive));
      KeepSigns(negative.data(), absl::MakeSpan(mixed));

      for (size_t i = 0; i < count; ++i) {
        if (i % 8 >= 6) {
          EXPECT_TRUE(std::isnan(positive[i]) && std::isnan(mixed[i]));
        } else {
          EXPECT_EQ(positive[i], expected[i % 8]) << i;
          EXPECT_EQ(mixed[i], flipped[i % 8]) << i;
        }
      }
    }
  });
}

}  // namespace
}  // namespace deltapipe
