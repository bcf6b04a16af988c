#include "compression/kernels/double_levels.h"

#include <algorithm>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/kernels/reference/double_levels.h"
#include "compression/kernels/vector_targets_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

struct TestCase {
  double base, step, scale;
};

// Ordinary levels, ones far from zero, downward ones, the largest, the least.
constexpr TestCase kCases[] = {{-2, 0.25, 1},
                               {100, 0.5, 1},
                               {2, -0.25, 1},
                               {-3e38, 4e37, 3e38},
                               {-1e-38, 2e-38, 1e-38}};

std::vector<float> Values(const TestCase& test, size_t count) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal;
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    // Every fourth is a level or the middle between two.
    const double value = i % 4 == 0
                             ? test.base + 0.5 * (generator() % 40) * test.step
                             : test.base + test.scale * normal(generator);
    values[i] = static_cast<float>(std::min(std::max(value, -3.4e38), 3.4e38));
  }
  return values;
}

TEST(DoubleLevelsTest, VectorKernelsAreTheReference) {
  for (const TestCase& test : kCases) {
    for (const size_t count : {0, 1, 7, 8, 9, 63, 64, 1001}) {
      SCOPED_TRACE(absl::StrCat("base ", test.base, ", count ", count));
      const std::vector<float> storage = Values(test, count + 1);
      const auto values = absl::MakeConstSpan(storage).subspan(1);
      std::mt19937 generator(4);
      std::vector<uint32_t> words(count);
      for (uint32_t& word : words) word = static_cast<uint32_t>(generator());
      const DoubleSteps steps = {test.base, 1 / test.step, 1, 15};
      std::vector<uint8_t> nearest(count), drawn(count);
      std::vector<float> restored(count);
      reference::DoubleCodes(values, steps, nearest.data());
      reference::DoubleStochasticCodes(values, steps, words.data(),
                                       drawn.data());
      reference::DoubleValues(drawn.data(), test.base, test.step,
                              absl::MakeSpan(restored));
      ForEachVectorTarget([&] {
        std::vector<uint8_t> codes(count);
        DoubleCodes(values, steps, codes.data());
        ASSERT_EQ(codes, nearest);
        DoubleStochasticCodes(values, steps, words.data(), codes.data());
        ASSERT_EQ(codes, drawn);
        ASSERT_EQ(DoubleError(values, steps),
                  reference::DoubleError(values, steps));
        std::vector<float> out(count);
        DoubleValues(codes.data(), test.base, test.step, absl::MakeSpan(out));
        ASSERT_EQ(out, restored);
      });
    }
  }
}

TEST(DoubleLevelsTest, TiesGoToTheEvenCode) {
  const std::vector<float> values = {0.5f, 1.5f, 2.5f, 3.5f, -0.5f, 9.5f};
  std::vector<uint8_t> codes(values.size());

  DoubleCodes(values, {0, 1, 0, 7}, codes.data());

  EXPECT_THAT(codes, ::testing::ElementsAre(0, 2, 2, 4, 0, 7));
}

}  // namespace
}  // namespace deltapipe
