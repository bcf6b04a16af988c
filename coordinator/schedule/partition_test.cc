#include "coordinator/schedule/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Cut {
  double largest = 0;
  double squares = 0;
};

Cut Measure(const std::vector<double>& costs, const std::vector<int>& ends) {
  Cut cut;
  int begin = 0;
  for (const int end : ends) {
    double sum = 0;
    for (int i = begin; i < end; ++i) sum += costs[i];
    cut.largest = std::max(cut.largest, sum);
    cut.squares += sum * sum;
    begin = end;
  }
  return cut;
}

/// The best of all cuts, by enumeration.
Cut BestOfAll(const std::vector<double>& costs, int num_stages) {
  const int n = static_cast<int>(costs.size());
  Cut best = {std::numeric_limits<double>::infinity(), 0};
  for (uint32_t mask = 0; mask < (1u << (n - 1)); ++mask) {
    if (__builtin_popcount(mask) != num_stages - 1) continue;
    std::vector<int> ends;
    for (int i = 1; i < n; ++i) {
      if (mask >> (i - 1) & 1) ends.push_back(i);
    }
    ends.push_back(n);
    const Cut cut = Measure(costs, ends);
    if (cut.largest < best.largest - 1e-9 ||
        (cut.largest < best.largest + 1e-9 && cut.squares < best.squares)) {
      best = cut;
    }
  }
  return best;
}

TEST(PartitionLayersTest, WithoutCostsLayersAreCounted) {
  EXPECT_THAT(PartitionLayers(std::vector<double>(8, 0), 4).value(),
              ElementsAre(2, 4, 6, 8));
  const std::vector<int> ends =
      PartitionLayers(std::vector<double>(10, 0), 4).value();
  const Cut cut = Measure(std::vector<double>(10, 1), ends);
  EXPECT_EQ(cut.largest, 3);
  EXPECT_EQ(cut.squares, 9 + 9 + 4 + 4);
}

TEST(PartitionLayersTest, HeavyLayerStandsAlone) {
  EXPECT_THAT(PartitionLayers({1, 1, 10, 1, 1}, 3).value(),
              ElementsAre(2, 3, 5));
}

TEST(PartitionLayersTest, EveryStageHasALayerEvenIfItsCostIsZero) {
  EXPECT_THAT(PartitionLayers({5, 0, 0}, 3).value(), ElementsAre(1, 2, 3));
}

TEST(PartitionLayersTest, AsGoodAsTheBestOfAllCuts) {
  const uint32_t seed = 20260;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 400; ++round) {
    const int num_layers = 1 + static_cast<int>(random() % 10);
    const int num_stages = 1 + static_cast<int>(random() % num_layers);
    std::vector<double> costs;
    for (int i = 0; i < num_layers; ++i) {
      costs.push_back(static_cast<double>(1 + random() % 20) / 8);
    }

    const auto ends = PartitionLayers(costs, num_stages);

    ASSERT_TRUE(ends.ok()) << ends.status();
    const Cut cut = Measure(costs, *ends);
    const Cut best = BestOfAll(costs, num_stages);
    EXPECT_NEAR(cut.largest, best.largest, 1e-9) << "round " << round;
    EXPECT_NEAR(cut.squares, best.squares, 1e-9) << "round " << round;
    EXPECT_EQ(ends->size(), num_stages);
    EXPECT_EQ(ends->back(), num_layers);
  }
}

TEST(PartitionLayersTest, ThousandsOfLayersAreQuick) {
  std::vector<double> costs;
  for (int i = 0; i < 1024; ++i) costs.push_back(1 + 0.1 * std::sin(i));

  const std::vector<int> ends = PartitionLayers(costs, 256).value();

  // Four layers a stage, whose costs differ from 4 by little.
  EXPECT_LE(Measure(costs, ends).largest, 5.1);
}

TEST(PartitionLayersTest, BadInputsAreRefused) {
  const auto too_many = PartitionLayers({1, 1}, 3);
  EXPECT_EQ(too_many.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(too_many.status().message()),
              HasSubstr("more stages than layers: 3 stages, 2 layers"));
  EXPECT_FALSE(PartitionLayers({1, 1}, 0).ok());
  EXPECT_FALSE(PartitionLayers({}, 1).ok());
  EXPECT_FALSE(PartitionLayers({1, -1}, 1).ok());
  EXPECT_FALSE(PartitionLayers({1, std::nan("")}, 1).ok());
  EXPECT_FALSE(
      PartitionLayers({std::numeric_limits<double>::infinity()}, 1).ok());
}

}  // namespace
}  // namespace deltapipe
