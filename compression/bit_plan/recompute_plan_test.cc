#include "compression/bit_plan/recompute_plan.h"

#include <algorithm>
#include <bitset>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/bit_plan.h"
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

// Layers of two tensors of any size, whose inputs, parts that are exempt and
// peaks while they are computed again are anything.
struct AnyLayers {
  explicit AnyLayers(uint32_t seed) : random(seed) {
    for (int layer = 0; layer < 3; ++layer) {
      const std::string name = absl::StrCat("blocks.", layer);
      int64_t raw = 0;
      for (int i = 0; i < 2; ++i) {
        SavedMeasurement measurement;
        measurement.tensor.layer = name;
        measurement.tensor.name = absl::StrCat(name, "/addmm/", i);
        measurement.tensor.num_elements = Draw(1000, 60000);
        raw += 4 * measurement.tensor.num_elements;
        measurements.push_back(measurement);
        question.tensors.coefficients.push_back(std::exp(Draw(-40, 40) / 10.0));
      }
      layers.push_back(
          {name, Draw(0, raw / 3), Draw(0, raw / 10), Draw(raw / 4, 2 * raw)});
    }
    question.tensors.measurements = measurements;
    question.tensors.levels = kLevels;
    question.layers = layers;
    question.most_layers = static_cast<int>(Draw(0, 3));
    question.in_flight = static_cast<int>(Draw(1, 5));
    question.head_bytes = Draw(0, 50000);
  }

  int64_t Draw(int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
  }

  /// At most at a time in a worker: all micro-batches, and for one of them, in
  /// the place of the head and of later layers, a layer that is computed again.
  int64_t Peak(const std::vector<int>& bits, unsigned recomputed) const {
    int64_t kept = 0;
    int64_t on_top = 0;
    int64_t gone = question.head_bytes;
    for (size_t k = layers.size(); k-- > 0;) {
      const SavedRoom::Layer& layer = layers[k];
      if ((recomputed >> k & 1) != 0) {
        on_top = std::max(on_top, layer.recomputed_bytes - gone);
        kept += layer.input_bytes - layer.exempt_bytes;
        gone += layer.input_bytes;
        continue;
      }
      const int64_t bytes =
          PackedBytes(measurements[2 * k], bits[2 * k]) +
          PackedBytes(measurements[2 * k + 1], bits[2 * k + 1]);
      kept += bytes;
      gone += bytes + layer.exempt_bytes;
    }
    return question.in_flight * kept + on_top;
  }
  double Cost(const std::vector<int>& bits, unsigned recomputed) const {
    double cost = 0;
    for (size_t i = 0; i < measurements.size(); ++i) {
      if ((recomputed >> i / 2 & 1) == 0) {
        cost += QuantisationCost(question.tensors.coefficients[i], bits[i]);
      }
    }
    return cost;
  }

  /// Of all plans with those layers whose peak is within `most`, the least
  /// cost; infinite if there is none.
  double LeastCost(unsigned recomputed, int64_t most) const {
    double least = std::numeric_limits<double>::infinity();
    std::vector<int> bits(measurements.size());
    for (int plan = 0; plan < 1 << (2 * measurements.size()); ++plan) {
      for (size_t i = 0; i < bits.size(); ++i) {
        bits[i] = kLevels[plan >> (2 * i) & 3];
      }
      if (Peak(bits, recomputed) > most) continue;
      least = std::min(least, Cost(bits, recomputed));
    }
    return least;
  }

  std::mt19937 random;
  std::vector<SavedMeasurement> measurements;
  std::vector<SavedRoom::Layer> layers;
  RecomputeQuestion question;
};

TEST(RecomputePlanTest, PeaksStayWithinTheBudgetAndCostIsNearTheLeast) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  int num_planned = 0;
  int num_recomputed = 0;
  int num_near = 0;
  int num_least = 0;
  for (uint32_t seed = 1; seed <= 120; ++seed) {
    AnyLayers any(seed);
    const RecomputeQuestion& question = any.question;
    const int64_t least = LeastBudget(question);
    const int64_t budget = least + any.Draw(-20000, 300000);
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", budget ", budget));

    const auto plan = PlanWithRecompute(question, budget);

    EXPECT_EQ(plan.ok(), budget >= least) << plan.status();
    if (!plan.ok()) continue;
    ++num_planned;
    unsigned recomputed = 0;
    std::vector<int> bits(any.measurements.size(), 0);
    for (size_t k = 0; k < any.layers.size(); ++k) {
      const auto& names = plan->recomputed;
      const bool is_in = std::find(names.begin(), names.end(),
                                   any.layers[k].name) != names.end();
      if (is_in) recomputed |= 1u << k;
    }
    for (size_t i = 0; i < bits.size(); ++i) {
      const auto found = plan->planned.find(any.measurements[i].tensor.name);
      const bool is_planned = found != plan->planned.end();
      EXPECT_EQ(is_planned, (recomputed >> i / 2 & 1) == 0);
      if (is_planned) bits[i] = static_cast<int>(found->second.value);
    }
    const int64_t most = question.in_flight * budget;
    EXPECT_LE(any.Peak(bits, recomputed), most);
    EXPECT_LE(plan->recomputed.size(), question.most_layers);
    num_recomputed += recomputed != 0 ? 1 : 0;
    const double cost = any.Cost(bits, recomputed);
    // Room is found by halves, and shares of it are rounded up.
    const double least_cost = any.LeastCost(recomputed, most);
    num_least += cost <= least_cost * 1.0001 ? 1 : 0;
    EXPECT_LE(cost, least_cost * 3);
    double best = kInfinity;
    for (unsigned layers = 0; layers < 8; ++layers) {
      const int count = static_cast<int>(std::bitset<3>(layers).count());
      if (count > question.most_layers) continue;
      const double found = any.LeastCost(layers, most);
      EXPECT_TRUE(layers != 0 || cost <= found * 1.0501);
      best = std::min(best, found);
    }
    EXPECT_GE(cost, best * 0.9999);
    num_near += cost <= best * 1.3 ? 1 : 0;
  }
  RecordProperty("planned", num_planned);
  RecordProperty("near", num_near);
  RecordProperty("least", num_least);
  EXPECT_GT(num_planned, 90);
  EXPECT_GT(num_recomputed, 20);
  EXPECT_GT(num_least, num_planned * 9 / 10);
  // Which layers is a heuristic.
  EXPECT_GT(num_near, num_planned * 7 / 10);
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
