#include "worker/optim/lane_reduction.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

constexpr uint32_t kSeed = 16;

std::vector<float> Values(int64_t count) {
  std::mt19937 random(kSeed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

TEST(LaneReductionTest, TheSumDoesNotDependOnHowElementsAreHandedOver) {
  RecordProperty("seed", int{kSeed});
  const std::vector<float> values = Values(1000);
  LaneSumOfSquares whole;
  whole.Add(values.data(), 1000);
  std::mt19937 random(kSeed);

  for (int repetition = 0; repetition < 50; ++repetition) {
    LaneSumOfSquares pieces;
    for (int64_t at = 0; at < 1000;) {
      const int64_t size =
          std::min<int64_t>(static_cast<int64_t>(random() % 70), 1000 - at);
      pieces.Add(values.data() + at, size);
      at += size;
    }
    ASSERT_EQ(pieces.Sum(), whole.Sum()) << "repetition " << repetition;
  }
}

TEST(LaneReductionTest, SumsAreThoseOfTheElements) {
  for (const int64_t count : {0, 1, 15, 16, 17, 513}) {
    const std::vector<float> values = Values(count);
    double sum = 0, squares = 0;
    float largest = 0;
    for (const float value : values) {
      sum += double{value};
      squares += double{value} * double{value};
      largest = std::max(largest, value);
    }
    LaneSum lane_sum;
    LaneSumOfSquares lane_squares;
    LaneMaximum<float> lane_maximum;

    lane_sum.Add(values.data(), count);
    lane_squares.Add(values.data(), count);
    lane_maximum.Add(values.data(), count);

    EXPECT_NEAR(lane_sum.Sum(), sum, 1e-12 * double(count)) << count;
    EXPECT_NEAR(lane_squares.Sum(), squares, 1e-12 * squares) << count;
    EXPECT_EQ(lane_maximum.Max(), largest) << count;
  }
}

}  // namespace
}  // namespace deltapipe
