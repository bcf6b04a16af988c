#include "compression/kernels/even_levels.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/float_cast.h"
#include "compression/kernels/reference/even_levels.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

// Counts on both sides of each vector's size, and more than a chunk.
constexpr size_t kCounts[] = {0,  1,  3,  4,  7,   8,    9,
                              15, 16, 17, 63, 100, 4096, 9001};

std::vector<float> NormalValues(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

TEST(EvenLevelsTest, RangesAreTheReferences) {
  ForEachVectorTarget([] {
    for (const size_t count : kCounts) {
      std::vector<float> values = NormalValues(count, 1);
      const ValueRange range = RangeOfValues(values);
      const ValueRange expected = reference::RangeOfValues(values);
      ASSERT_TRUE(range.all_finite);
      ASSERT_EQ(range.low, expected.low) << count;
      ASSERT_EQ(range.high, expected.high) << count;
      for (size_t i = 0; i < count; i += 1 + count / 7) {
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                                -std::numeric_limits<float>::infinity()}) {
          std::vector<float> spoiled = values;
          spoiled[i] = bad;
          ASSERT_FALSE(RangeOfValues(spoiled).all_finite)
              << i << " of " << count;
        }
      }
    }
    for (const std::vector<float>& zeros :
         {std::vector<float>(20, -0.0f), std::vector<float>{-0.0f}}) {
      ASSERT_EQ(FloatBits(RangeOfValues(zeros).low), 0);
      ASSERT_EQ(FloatBits(RangeOfValues(zeros).high), 0);
    }
  });
}

TEST(EvenLevelsTest, CodesErrorsAndValuesAreTheReferences) {
  ForEachVectorTarget([] {
    for (const size_t count : kCounts) {
      for (const EvenSteps& steps :
           {EvenSteps{1, -2.5f, 3}, EvenSteps{1, -1, 9}, EvenSteps{1, 0.7f, 0},
            EvenSteps{0x1p-2f, -0.6f, 12}}) {
        const std::vector<float> values = NormalValues(count, 2);
        std::vector<uint8_t> codes(count), expected_codes(count);
        std::vector<float> decoded(count), expected_decoded(count);

        EvenCodes(values, steps, codes.data());
        EvenValues(codes.data(), 0.3359375f, -2.5f, absl::MakeSpan(decoded));

        reference::EvenCodes(values, steps, expected_codes.data());
        reference::EvenValues(codes.data(), 0.3359375f, -2.5f,
                              absl::MakeSpan(expected_decoded));
        ASSERT_EQ(codes, expected_codes) << count;
        ASSERT_EQ(decoded, expected_decoded) << count;
        ASSERT_EQ(EvenError(values, steps), reference::EvenError(values, steps))
            << count;
      }
    }
  });
}

}  // namespace
}  // namespace deltapipe
