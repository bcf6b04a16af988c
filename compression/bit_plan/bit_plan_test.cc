#include "compression/bit_plan/bit_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/plan_steps.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Levels of a tensor, as policies make them.
BitPlanItem Tensor(std::string name, int64_t num_elements, double coefficient,
                   std::vector<int> bits = {1, 2, 4, 8, 32}) {
  BitPlanItem item;
  item.name = std::move(name);
  for (const int b : bits) {
    item.levels.push_back(
        {num_elements * b / 8, QuantisationCost(coefficient, b)});
  }
  return item;
}

int64_t BytesAt(const std::vector<BitPlanItem>& items, bool is_first) {
  int64_t bytes = 0;
  for (const BitPlanItem& item : items) {
    bytes += is_first ? item.levels.front().bytes : item.levels.back().bytes;
  }
  return bytes;
}

struct Instance {
  std::vector<BitPlanItem> items;
  int64_t budget = 0;
};

// Sizes over three, coefficients over six orders of magnitude.
Instance RandomTensors(size_t count, std::mt19937* random) {
  Instance instance;
  std::uniform_real_distribution<double> share(0, 1);
  for (size_t i = 0; i < count; ++i) {
    instance.items.push_back(
        Tensor(absl::StrCat("tensor ", i),
               static_cast<int64_t>(std::exp(7 + 7 * share(*random))),
               std::exp(14 * share(*random))));
  }
  const int64_t least = BytesAt(instance.items, true);
  const int64_t most = BytesAt(instance.items, false);
  instance.budget =
      least + static_cast<int64_t>(std::pow(share(*random), 2) *
                                   static_cast<double>(most - least));
  return instance;
}

// Levels in no relation to bits: equal bytes, equal costs, no convexity.
Instance RandomLevels(size_t count, std::mt19937* random) {
  Instance instance;
  for (size_t i = 0; i < count; ++i) {
    BitPlanItem item;
    item.name = absl::StrCat("item ", i);
    BitLevel level{static_cast<int64_t>((*random)() % 20),
                   static_cast<double>((*random)() % 100)};
    const size_t num_levels = 1 + (*random)() % 5;
    while (item.levels.size() < num_levels) {
      item.levels.push_back(level);
      level.bytes += (*random)() % 6;
      level.cost -= std::min(level.cost, static_cast<double>((*random)() % 40));
    }
    instance.items.push_back(std::move(item));
  }
  instance.budget = BytesAt(instance.items, true) + (*random)() % 40;
  return instance;
}

double BruteForceCost(const Instance& instance, size_t item = 0,
                      int64_t bytes = 0) {
  if (bytes > instance.budget) return std::numeric_limits<double>::infinity();
  if (item == instance.items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const BitLevel& level : instance.items[item].levels) {
    best = std::min(best, level.cost + BruteForceCost(instance, item + 1,
                                                      bytes + level.bytes));
  }
  return best;
}

void ExpectWithinBudget(const Instance& instance, const BitPlan& plan) {
  ASSERT_EQ(plan.levels.size(), instance.items.size());
  int64_t bytes = 0;
  double cost = 0;
  for (size_t i = 0; i < plan.levels.size(); ++i) {
    bytes += instance.items[i].levels.at(plan.levels[i]).bytes;
    cost += instance.items[i].levels.at(plan.levels[i]).cost;
  }
  EXPECT_EQ(plan.bytes, bytes);
  EXPECT_DOUBLE_EQ(plan.cost, cost);
  EXPECT_LE(bytes, instance.budget);
}

TEST(BitPlanTest, FewItemsGetTheBestOfAllPlans) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    const size_t count = random() % 8;
    const Instance instance = seed % 2 == 0 ? RandomTensors(count, &random)
                                            : RandomLevels(count, &random);

    const auto plan = PlanBits(instance.items, instance.budget);

    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(plan->is_exact);
    ExpectWithinBudget(instance, *plan);
    const double best = BruteForceCost(instance);
    EXPECT_NEAR(plan->cost, best, 1e-9 * best);
  }
}

TEST(BitPlanTest, SixtyFourItemsAreSolvedExactly) {
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    const Instance instance = seed % 4 == 0
                                  ? RandomLevels(kMaxExactItems, &random)
                                  : RandomTensors(kMaxExactItems, &random);

    const auto plan = PlanBits(instance.items, instance.budget);
    const auto greedy = PlanBitsGreedily(instance.items, instance.budget);

    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(plan->is_exact);
    ExpectWithinBudget(instance, *plan);
    EXPECT_LE(plan->cost, greedy->cost * (1 + 1e-12));
  }
}

// Layers of a model come in few sizes with sensitivities close to each other.
TEST(BitPlanTest, ItemsThatAreAlikeAreSolvedExactly) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> near_one(0.9, 1.1);
    Instance instance;
    for (int i = 0; i < kMaxExactItems; ++i) {
      instance.items.push_back(Tensor(absl::StrCat(i), 4096 << (i % 3),
                                      near_one(random), {1, 2, 3, 4, 8}));
    }
    instance.budget = BytesAt(instance.items, true) * 5 / 2 + 100 * seed;

    const auto plan = PlanBits(instance.items, instance.budget);

    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(plan->is_exact);
    ExpectWithinBudget(instance, *plan);
  }
}

// Sizes over a factor of 16 and a budget of 2 to 6 bits: tensors of one model.
Instance LayersOfAModel(size_t count, std::mt19937* random) {
  Instance instance;
  std::uniform_real_distribution<double> share(0, 1);
  int64_t num_elements = 0;
  for (size_t i = 0; i < count; ++i) {
    const int64_t size = 4096 << ((*random)() % 5);
    num_elements += size;
    instance.items.push_back(Tensor(absl::StrCat("layer ", i), size,
                                    std::exp(7 * share(*random)),
                                    {2, 4, 8, 32}));
  }
  instance.budget = static_cast<int64_t>(static_cast<double>(num_elements) *
                                         (2 + 4 * share(*random)) / 8);
  return instance;
}

// The seeds are fixed. PlanBits, which is exact here, is always within 1 %.
TEST(BitPlanTest, GreedyIsWithinOnePercentOfTheBestBarringAFew) {
  constexpr int kNumInstances = 400;
  for (const auto make : {&LayersOfAModel, &RandomTensors}) {
    int num_worse = 0;
    for (uint32_t seed = 1; seed <= kNumInstances; ++seed) {
      SCOPED_TRACE(absl::StrCat("seed ", seed));
      std::mt19937 random(seed);
      const Instance instance = make(1 + random() % 20, &random);

      const auto greedy = PlanBitsGreedily(instance.items, instance.budget);
      const auto best = PlanBits(instance.items, instance.budget);

      ASSERT_TRUE(greedy.ok() && best.ok());
      ASSERT_TRUE(best->is_exact);
      EXPECT_FALSE(greedy->is_exact);
      ExpectWithinBudget(instance, *greedy);
      num_worse += greedy->cost > 1.01 * best->cost;
    }
    EXPECT_LE(num_worse, make == &LayersOfAModel ? 4 : 16);
  }
}

TEST(BitPlanTest, ManyItemsAreWithinTwoPercentOfTheBound) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    const Instance instance = LayersOfAModel(65 + random() % 200, &random);
    // What parts of steps would reach: below what any plan can.
    int64_t room = instance.budget - BytesAt(instance.items, true);
    double bound = 0;
    for (const BitPlanItem& item : instance.items) {
      bound += item.levels[0].cost;
    }
    for (const PlanStep& step : HullSteps(instance.items)) {
      const double share = std::min(
          1.0, static_cast<double>(room) / static_cast<double>(step.bytes));
      bound -= share * step.saving;
      room -= std::min(room, step.bytes);
    }

    const auto plan = PlanBits(instance.items, instance.budget);

    ASSERT_TRUE(plan.ok()) << plan.status();
    ExpectWithinBudget(instance, *plan);
    EXPECT_GE(plan->cost, bound * (1 - 1e-12));
    EXPECT_LE(plan->cost, 1.02 * bound);
  }
}

TEST(BitPlanTest, ManyItemsStayWithinTheBudgetAndNothingMoreFits) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    const Instance instance = RandomTensors(10000, &random);

    const auto plan = PlanBits(instance.items, instance.budget);

    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_FALSE(plan->is_exact);
    ExpectWithinBudget(instance, *plan);
    for (size_t i = 0; i < plan->levels.size(); ++i) {
      const std::vector<BitLevel>& levels = instance.items[i].levels;
      const int level = plan->levels[i];
      if (level + 1 == levels.size()) continue;
      const int64_t more = levels[level + 1].bytes - levels[level].bytes;
      EXPECT_GT(plan->bytes + more, instance.budget) << "item " << i;
    }
  }
}

// Where every element of every tensor matters as much as any other, all steps
// to one level save the same per byte and bounds tell plans apart only by what
// they leave of the budget: the hardest case.
TEST(BitPlanTest, TensorsAsSensitiveAsTheyAreLargeAreSolved) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    Instance instance;
    for (int i = 0; i < kMaxExactItems; ++i) {
      const int64_t size = 1 + random() % (seed % 2 == 0 ? 1000000 : 4096);
      instance.items.push_back(Tensor(absl::StrCat(i), 8 * size,
                                      static_cast<double>(size), {1, 2, 4, 8}));
    }
    instance.budget = BytesAt(instance.items, true) * (20 + random() % 40) / 10;

    const auto plan = PlanBits(instance.items, instance.budget);

    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_TRUE(plan->is_exact);
    ExpectWithinBudget(instance, *plan);
    EXPECT_GT(plan->bytes, instance.budget * (1 - 1e-4));
  }
}

TEST(BitPlanTest, AmpleBudgetGivesEverythingItsBestLevel) {
  const std::vector<BitPlanItem> items = {Tensor("a", 800, 1),
                                          Tensor("b", 80, 2)};

  const auto plan = PlanBits(items, BytesAt(items, false));

  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(plan->levels, ElementsAre(4, 4));
  EXPECT_EQ(plan->cost, 0);
}

TEST(BitPlanTest, NothingToPlanIsAPlan) {
  const auto plan = PlanBits({}, 0);

  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->levels.empty());
  EXPECT_TRUE(plan->is_exact);
}

TEST(BitPlanTest, LevelsThatCostTheSameAreNotPaidFor) {
  BitPlanItem item;
  item.name = "constant";
  item.levels = {{10, 0}, {20, 0}, {40, 0}};

  const auto plan = PlanBits({item}, 100);

  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(plan->levels, ElementsAre(0));
}

TEST(BitPlanTest, TooSmallABudgetNamesTheSmallestAndTheLargestTensors) {
  const std::vector<BitPlanItem> items = {Tensor("a", 80, 1),
                                          Tensor("b", 8000, 1)};

  const absl::Status status = PlanBits(items, 1009).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("budget of 1009 bytes for 2 tensors, expected at least "
                        "1010; the largest are b (1000), a (10)"));
  EXPECT_TRUE(PlanBits(items, 1010).ok());
  EXPECT_EQ(PlanBitsGreedily(items, 1009).status(), status);
}

TEST(BitPlanTest, RefusesLevelsThatCannotBe) {
  struct Case {
    std::vector<BitLevel> levels;
    const char* message;
  };
  for (const Case& test : std::vector<Case>{
           {{}, "'x', level 0: expected one level"},
           {{{2, 1}, {1, 0}}, "'x', level 1: 1 bytes at cost 0 after 2 at 1"},
           {{{1, 1}, {2, 3}}, "'x', level 1: 2 bytes at cost 3 after 1 at 1"},
           {{{-1, 1}}, "'x', level 0: -1 bytes, expected 0 to"},
           {{{1, -1}}, "'x', level 0: cost -1"},
           {{{1, NAN}}, "'x', level 0: cost nan"},
           {{{1, INFINITY}}, "'x', level 0: cost inf"}}) {
    BitPlanItem item;
    item.name = "x";
    item.levels = test.levels;

    const absl::Status status = PlanBits({item}, 100).status();

    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

TEST(BitPlanTest, CostFallsWithTheSquareOfTheLevels) {
  EXPECT_EQ(QuantisationCost(9, 1), 9);
  EXPECT_EQ(QuantisationCost(9, 2), 1);
  EXPECT_EQ(QuantisationCost(225, 4), 1);
  EXPECT_EQ(QuantisationCost(1, 16), 0);
  EXPECT_EQ(QuantisationCost(1, 32), 0);
  EXPECT_TRUE(std::isinf(QuantisationCost(1, 0)));
}

}  // namespace
}  // namespace deltapipe
