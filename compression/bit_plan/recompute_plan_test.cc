#include "compression/bit_plan/recompute_plan.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;

constexpr int64_t kElements = 1 << 16;
constexpr int kLevels[] = {2, 4, 8, kExactBits};

// Layers of four tensors each, of which each costs `costs[layer]` at one bit.
// A layer's input takes as much as one of them.
struct Layers {
  explicit Layers(const std::vector<double>& costs) {
    for (size_t layer = 0; layer < costs.size(); ++layer) {
      const std::string name = absl::StrCat("blocks.", layer);
      for (int i = 0; i < 4; ++i) {
        SavedMeasurement measurement;
        measurement.tensor.layer = name;
        measurement.tensor.op = "addmm";
        measurement.tensor.name = absl::StrCat(name, "/addmm/", i);
        measurement.tensor.shape = {kElements};
        measurement.tensor.num_elements = kElements;
        measurements.push_back(measurement);
        question.tensors.coefficients.push_back(costs[layer]);
      }
      layers.push_back({name, 4 * kElements, 1000});
    }
    question.tensors.measurements = measurements;
    question.tensors.levels = kLevels;
    question.layers = layers;
    question.most_layers = static_cast<int>(layers.size());
  }

  int64_t BytesAt(int bits) const {
    int64_t bytes = 0;
    for (const SavedMeasurement& measurement : measurements) {
      bytes += PackedBytes(measurement, bits);
    }
    return bytes;
  }

  std::vector<SavedMeasurement> measurements;
  std::vector<SavedRoom::Layer> layers;
  RecomputeQuestion question;
};

TEST(RecomputePlanTest, ForwardIsAThirdOfAStep) {
  EXPECT_EQ(LayersForSlowdown(8, 0), 0);
  EXPECT_EQ(LayersForSlowdown(8, 0.04), 0);
  EXPECT_EQ(LayersForSlowdown(8, 0.1), 2);
  EXPECT_EQ(LayersForSlowdown(6, 1.0 / 6), 3);
  EXPECT_EQ(LayersForSlowdown(8, 0.34), 8);
  EXPECT_EQ(LayersForSlowdown(0, 0.34), 0);
}

TEST(RecomputePlanTest, NothingIsComputedAgainWhereAllFitsAsItIs) {
  const Layers layers({1, 2, 3});

  const auto plan = PlanWithRecompute(layers.question, layers.BytesAt(32));

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->recomputed, IsEmpty());
  for (const auto& tensor : plan->planned) {
    EXPECT_EQ(tensor.second.value, kExactBits);
  }
}

TEST(RecomputePlanTest, TheCostliestLayersGoFirstAndTheOthersWinTheirRoom) {
  Layers layers({1, 1e6, 1, 1e4});
  layers.question.most_layers = 1;
  // At 8 bits a layer's tensors take as much as its input.
  const int64_t budget = layers.BytesAt(8);

  const auto plan = PlanWithRecompute(layers.question, budget);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->recomputed, ElementsAre("blocks.1"));
  EXPECT_THAT(plan->planned, Not(Contains(Key("blocks.1/addmm/0"))));
  EXPECT_GT(plan->planned.at("blocks.3/addmm/0").value, 8);
  int64_t bytes = layers.layers[1].input_bytes - layers.layers[1].exempt_bytes;
  for (const SavedMeasurement& measurement : layers.measurements) {
    const auto found = plan->planned.find(measurement.tensor.name);
    if (found == plan->planned.end()) continue;
    bytes += PackedBytes(measurement, static_cast<int>(found->second.value));
  }
  EXPECT_LE(bytes, budget);
}

TEST(RecomputePlanTest, ABudgetBelowTheLowestLevelsIsMetByComputingAgain) {
  Layers layers({1, 1, 1, 1});
  for (SavedRoom::Layer& layer : layers.layers) layer.input_bytes = 1000;
  const int64_t lowest = layers.BytesAt(2);
  const int64_t least = LeastBudget(layers.question);
  EXPECT_EQ(least, 0);
  layers.question.most_layers = 2;
  EXPECT_EQ(LeastBudget(layers.question), lowest / 2);

  const auto plan = PlanWithRecompute(layers.question, lowest / 2);

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->recomputed.size(), 2u);
  EXPECT_EQ(PlanWithRecompute(layers.question, lowest / 2 - 1).status().code(),
            absl::StatusCode::kResourceExhausted);
  layers.question.most_layers = 0;
  EXPECT_EQ(LeastBudget(layers.question), lowest);
}

TEST(RecomputePlanTest, InputsThatDoNotFitAreNoPlan) {
  Layers layers({1, 1});
  for (SavedRoom::Layer& layer : layers.layers) layer.input_bytes = 1 << 30;

  const auto plan = PlanWithRecompute(layers.question, layers.BytesAt(2));

  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->recomputed, IsEmpty());
}

}  // namespace
}  // namespace deltapipe
