#include "base/microbatch_balance.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

double FinishOf(const ReplicaCost& cost, int count) {
  return cost.fixed_seconds + count * cost.seconds_per_microbatch;
}

}  // namespace

double FinishSeconds(absl::Span<const ReplicaCost> costs,
                     absl::Span<const int> counts) {
  double finish = 0;
  for (size_t r = 0; r < costs.size(); ++r) {
    finish = std::max(finish, FinishOf(costs[r], counts[r]));
  }
  return finish;
}

absl::StatusOr<Balance> BalanceMicrobatches(absl::Span<const ReplicaCost> costs,
                                            int total, int max_each) {
  const int num_replicas = static_cast<int>(costs.size());
  if (num_replicas == 0 || total < num_replicas) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot give ", total, " micro-batches to ", num_replicas,
                     " replicas: each needs one"));
  }
  if (total > int64_t{num_replicas} * max_each) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot give ", total, " micro-batches to ", num_replicas,
                     " replicas of at most ", max_each));
  }
  for (int r = 0; r < num_replicas; ++r) {
    const ReplicaCost& cost = costs[r];
    if (!std::isfinite(cost.seconds_per_microbatch) ||
        cost.seconds_per_microbatch <= 0 ||
        !std::isfinite(cost.fixed_seconds) || cost.fixed_seconds < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "replica ", r, " has no valid cost: ", cost.seconds_per_microbatch,
          " s per micro-batch, ", cost.fixed_seconds, " s per step"));
    }
  }
  Balance balance;
  balance.counts.assign(num_replicas, 1);
  // When a replica would finish with one more; then its number.
  using Offer = std::pair<double, int>;
  std::priority_queue<Offer, std::vector<Offer>, std::greater<Offer>> offers;
  const auto offer = [&](int r) {
    if (balance.counts[r] == max_each) return;
    offers.push({FinishOf(costs[r], balance.counts[r] + 1), r});
  };
  for (int r = 0; r < num_replicas; ++r) offer(r);
  for (int given = num_replicas; given < total; ++given) {
    const int r = offers.top().second;
    offers.pop();
    ++balance.counts[r];
    offer(r);
  }
  balance.finish_seconds = FinishSeconds(costs, balance.counts);
  return balance;
}

absl::StatusOr<Rebalance> RebalanceMicrobatches(
    absl::Span<const ReplicaCost> costs, absl::Span<const int> current,
    const RebalanceOptions& options) {
  if (current.size() != costs.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "counts of ", current.size(), " replicas, costs of ", costs.size()));
  }
  DP_ASSIGN_OR_RETURN(
      Balance best,
      BalanceMicrobatches(costs,
                          std::accumulate(current.begin(), current.end(), 0)));
  Rebalance result;
  result.gain = (FinishSeconds(costs, current) + options.rest_seconds) /
                    (best.finish_seconds + options.rest_seconds) -
                1;
  result.is_change = result.gain >= options.min_gain;
  result.counts = result.is_change
                      ? std::move(best.counts)
                      : std::vector<int>(current.begin(), current.end());
  return result;
}

}  // namespace deltapipe
