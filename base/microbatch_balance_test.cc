#include "base/microbatch_balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <string>

namespace deltapipe {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;

std::vector<ReplicaCost> Costs(std::vector<double> seconds) {
  std::vector<ReplicaCost> costs;
  for (const double value : seconds) costs.push_back({value, 0});
  return costs;
}

/// The smallest finish over all ways to share, by trying them.
double BestByTrying(absl::Span<const ReplicaCost> costs, int total) {
  std::vector<int> counts(costs.size(), 1);
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(size_t, int)> fill = [&](size_t r, int left) {
    if (r + 1 == costs.size()) {
      counts[r] = left;
      best = std::min(best, FinishSeconds(costs, counts));
      return;
    }
    for (counts[r] = 1;
         counts[r] <= left - static_cast<int>(costs.size() - r) + 1;
         ++counts[r]) {
      fill(r + 1, left - counts[r]);
    }
  };
  fill(0, total);
  return best;
}

TEST(MicrobatchBalanceTest, FinishesAsEarlyAsTheBestOfAllWays) {
  const unsigned seed = 20250102;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> seconds(0.2, 3), fixed(0, 5);
  for (int round = 0; round < 300; ++round) {
    std::vector<ReplicaCost> costs(1 + random() % 4);
    for (ReplicaCost& cost : costs) cost = {seconds(random), fixed(random)};
    const int total = static_cast<int>(costs.size() + random() % 12);

    const absl::StatusOr<Balance> balance = BalanceMicrobatches(costs, total);

    ASSERT_TRUE(balance.ok()) << balance.status();
    EXPECT_THAT(balance->counts, Each(Ge(1)));
    EXPECT_EQ(
        std::accumulate(balance->counts.begin(), balance->counts.end(), 0),
        total);
    EXPECT_EQ(balance->finish_seconds, FinishSeconds(costs, balance->counts));
    EXPECT_DOUBLE_EQ(balance->finish_seconds, BestByTrying(costs, total));
  }
}

TEST(MicrobatchBalanceTest, NobodyGetsMoreThanTheLimit) {
  const std::vector<ReplicaCost> costs = {{1, 0}, {1, 0}, {10, 0}};

  const auto balance = BalanceMicrobatches(costs, 12, 5);

  ASSERT_TRUE(balance.ok()) << balance.status();
  EXPECT_THAT(balance->counts, ElementsAre(5, 5, 2));
  EXPECT_EQ(balance->finish_seconds, 20);
  EXPECT_TRUE(BalanceMicrobatches(costs, 15, 5).ok());
  EXPECT_EQ(BalanceMicrobatches(costs, 16, 5).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MicrobatchBalanceTest, EqualReplicasShareEvenlyAndTheFirstTakeTheRest) {
  EXPECT_THAT(BalanceMicrobatches(Costs({1, 1, 1}), 8)->counts,
              ElementsAre(3, 3, 2));
}

// One of N replicas s times slower, 16 micro-batches each, 2 micro-batches'
// time for the rest of the step: s=1.5, N=8 gains 1.368; s=2, N=8 1.70; s=1.2,
// N=4 1.12.
TEST(MicrobatchBalanceTest, GainsOfOneSlowReplicaAreThoseOfHandCounts) {
  const struct {
    double times;
    int replicas;
    double speedup;
  } cases[] = {{1.5, 8, 1.368}, {2, 8, 1.70}, {1.2, 4, 1.12}};
  for (const auto& one : cases) {
    std::vector<double> seconds(one.replicas, 1);
    seconds[3] = one.times;

    const absl::StatusOr<Rebalance> result = RebalanceMicrobatches(
        Costs(seconds), std::vector<int>(one.replicas, 16),
        {/*rest_seconds=*/2, /*min_gain=*/0.03});

    ASSERT_TRUE(result.ok());
    EXPECT_TRUE(result->is_change);
    EXPECT_NEAR(1 + result->gain, one.speedup, 0.005) << one.times;
  }
}

TEST(MicrobatchBalanceTest, ASmallGainChangesNothing) {
  const std::vector<int> even(4, 50);
  // 50 * 1.04 against 50.5 or so: 2.9 %.
  const absl::StatusOr<Rebalance> small =
      RebalanceMicrobatches(Costs({1, 1, 1, 1.04}), even);
  const absl::StatusOr<Rebalance> large =
      RebalanceMicrobatches(Costs({1, 1, 1, 1.06}), even);

  ASSERT_TRUE(small.ok() && large.ok());
  EXPECT_FALSE(small->is_change);
  EXPECT_GT(small->gain, 0.01);
  EXPECT_EQ(small->counts, even);
  EXPECT_TRUE(large->is_change);
  EXPECT_NE(large->counts, even);
}

TEST(MicrobatchBalanceTest, ABalancedJobStaysAsItIs) {
  const std::vector<ReplicaCost> costs = Costs({1, 1.5, 1, 1});
  const std::vector<int> balanced = BalanceMicrobatches(costs, 64)->counts;

  const absl::StatusOr<Rebalance> again =
      RebalanceMicrobatches(costs, balanced);

  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->gain, 0);
  EXPECT_FALSE(again->is_change);
}

TEST(MicrobatchBalanceTest, RefusesWhatCannotBeShared) {
  EXPECT_THAT(
      std::string(BalanceMicrobatches(Costs({1, 1}), 1).status().message()),
      HasSubstr("cannot give 1 micro-batches to 2 replicas"));
  EXPECT_EQ(BalanceMicrobatches({}, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (const double bad :
       {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THAT(
        std::string(BalanceMicrobatches(Costs({1, bad}), 8).status().message()),
        HasSubstr("replica 1 has no valid cost"));
  }
  EXPECT_EQ(RebalanceMicrobatches(Costs({1, 1}), {4}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
