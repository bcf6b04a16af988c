#include "worker/stragglers/drop_budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace deltapipe {
namespace {

struct Scenario {
  int num_replicas = 4;
  int num_microbatches = 6;
  double max_share = 0.1;
  /// Observations arrive so many steps late.
  int lag = 1;
  int num_steps = 600;
  /// How likely a replica wants to drop all but one.
  double greed = 1;
};

/// Drops per step of replicas that take what their own budget allows.
std::vector<int> Drops(const Scenario& scenario, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<DropBudget> budgets(scenario.num_replicas,
                                  DropBudget(scenario.max_share));
  std::vector<int> drops;
  for (int step = 0; step < scenario.num_steps; ++step) {
    int dropped = 0;
    for (int r = 0; r < scenario.num_replicas; ++r) {
      if (step >= scenario.lag) {
        budgets[r].Record(step - scenario.lag, drops[step - scenario.lag]);
      }
      const int64_t part = budgets[r].Begin(
          step, scenario.num_replicas * scenario.num_microbatches,
          scenario.num_replicas, r);
      if (uniform(random) < scenario.greed) {
        dropped += static_cast<int>(
            std::min<int64_t>(part, scenario.num_microbatches - 1));
      }
    }
    drops.push_back(dropped);
  }
  return drops;
}

int LargestWindow(const std::vector<int>& drops, int window) {
  int largest = 0;
  for (size_t end = window; end <= drops.size(); ++end) {
    largest = std::max(largest, std::accumulate(drops.begin() + end - window,
                                                drops.begin() + end, 0));
  }
  return largest;
}

TEST(DropBudgetTest, NoWindowExceedsTheBoundHoweverGreedyTheReplicas) {
  std::mt19937 random(20250103);
  for (int round = 0; round < 60; ++round) {
    Scenario scenario;
    scenario.num_replicas = 1 + static_cast<int>(random() % 9);
    scenario.num_microbatches = 2 + static_cast<int>(random() % 20);
    scenario.max_share = 0.01 * (1 + random() % 40);
    scenario.lag = 1 + static_cast<int>(random() % 5);
    scenario.greed = 0.1 * (1 + random() % 10);
    SCOPED_TRACE(testing::Message()
                 << "round " << round << ": " << scenario.num_replicas << " x "
                 << scenario.num_microbatches << ", cap " << scenario.max_share
                 << ", lag " << scenario.lag);

    const std::vector<int> drops = Drops(scenario, random());

    EXPECT_LE(LargestWindow(drops, 100), scenario.max_share * 100 *
                                                 scenario.num_replicas *
                                                 scenario.num_microbatches +
                                             1e-6);
  }
}

TEST(DropBudgetTest, TheBudgetCanBeUsedUp) {
  Scenario scenario;  // 240 of 2,400 a window
  scenario.max_share = 0.1;

  EXPECT_GE(LargestWindow(Drops(scenario, 1), 100), 230);
}

TEST(DropBudgetTest, WhatOneReplicaLeavesAnotherMayUse) {
  DropBudget budget(0.1);
  for (int step = 0; step < 60; ++step) {
    budget.Begin(step, 40, 4, 0);
    budget.Record(step, 0);
  }

  // 61 steps of 40 micro-batches at 10 %: 244 for 4 replicas.
  EXPECT_EQ(budget.Begin(60, 40, 4, 0), 61);
}

TEST(DropBudgetTest, BeforeItsFirstStepTheBudgetCountsAsSpent) {
  DropBudget budget(0.1);

  EXPECT_EQ(budget.Begin(5000, 40, 4, 0), 1);  // 10 % of this step
}

TEST(DropBudgetTest, AStepThatIsDoneAgainReplacesItself) {
  DropBudget budget(0.1);
  for (int step = 0; step < 20; ++step) {
    budget.Begin(step, 40, 4, 0);
    budget.Record(step, 0);
  }
  const int64_t first = budget.Begin(10, 40, 4, 0);

  EXPECT_EQ(first, 11);
  EXPECT_EQ(budget.Begin(10, 40, 4, 0), first);
}

}  // namespace
}  // namespace deltapipe
