#include "worker/stragglers/jitter_or_persistent.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/microbatch_balance.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr int kQuarters = 4;

/// The lower one of an even number, so that it is a measured value. Needs one
/// value at least.
double Median(std::vector<double> values) {
  const size_t middle = (values.size() - 1) / 2;
  std::nth_element(values.begin(), values.begin() + middle, values.end());
  return values[middle];
}

std::vector<double> MedianPaces(absl::Span<const StepObservation> steps) {
  std::vector<double> paces;
  std::vector<double> values(steps.size());
  for (size_t r = 0; r < steps[0].replicas.size(); ++r) {
    for (size_t i = 0; i < steps.size(); ++i) {
      values[i] = steps[i].replicas[r].PaceSeconds();
    }
    paces.push_back(Median(values));
  }
  return paces;
}

/// The smallest shift that each replica's pace keeps in all quarters: above 0
/// slower than the median of all replicas, below 0 faster, 0: neither for long.
std::vector<double> LastingShifts(absl::Span<const StepObservation> steps) {
  const size_t num_replicas = steps[0].replicas.size();
  std::vector<double> lowest(num_replicas, INFINITY);
  std::vector<double> highest(num_replicas, -INFINITY);
  for (int quarter = 0; quarter < kQuarters; ++quarter) {
    const size_t begin = steps.size() * quarter / kQuarters;
    const size_t end = steps.size() * (quarter + 1) / kQuarters;
    const std::vector<double> paces =
        MedianPaces(steps.subspan(begin, end - begin));
    const double usual = Median(paces);
    for (size_t r = 0; r < num_replicas; ++r) {
      const double shift = usual > 0 ? paces[r] / usual - 1 : 0;
      lowest[r] = std::min(lowest[r], shift);
      highest[r] = std::max(highest[r], shift);
    }
  }
  std::vector<double> shifts(num_replicas, 0);
  for (size_t r = 0; r < num_replicas; ++r) {
    if (lowest[r] > 0) shifts[r] = lowest[r];
    if (highest[r] < 0) shifts[r] = highest[r];
  }
  return shifts;
}

std::vector<ReplicaCost> Costs(absl::Span<const StepObservation> steps) {
  const std::vector<double> paces = MedianPaces(steps);
  std::vector<ReplicaCost> costs;
  std::vector<double> firsts(steps.size());
  for (size_t r = 0; r < paces.size(); ++r) {
    for (size_t i = 0; i < steps.size(); ++i) {
      firsts[i] = steps[i].replicas[r].done_seconds[0];
    }
    costs.push_back({paces[r], std::max(0.0, Median(firsts) - paces[r])});
  }
  return costs;
}

/// Sets counts and rebalance_gain if a replica differs for long.
absl::Status ConsiderRebalance(absl::Span<const StepObservation> steps,
                               const SlownessOptions& options,
                               SlownessVerdict* verdict) {
  const std::vector<double> shifts = LastingShifts(steps);
  double largest = 0;
  for (size_t r = 0; r < shifts.size(); ++r) {
    if (std::abs(shifts[r]) < options.min_shift) continue;
    if (std::abs(shifts[r]) <= largest) continue;
    largest = std::abs(shifts[r]);
    verdict->replica = static_cast<int>(r);
  }
  // Counts that were moved once are looked at again when all are alike.
  const auto [fewest, most] =
      std::minmax_element(verdict->counts.begin(), verdict->counts.end());
  if (verdict->replica < 0 && *most - *fewest <= 1) return absl::OkStatus();
  const int total =
      std::accumulate(verdict->counts.begin(), verdict->counts.end(), 0);
  DP_ASSIGN_OR_RETURN(
      Balance balance,
      BalanceMicrobatches(Costs(steps), total, options.max_microbatches));
  verdict->rebalance_gain = RebalanceSpeedup(steps, balance.counts) - 1;
  verdict->counts = std::move(balance.counts);
  return absl::OkStatus();
}

std::string Percent(double share) {
  return absl::StrFormat("%.1f %%", 100 * share);
}

}  // namespace

double RebalanceSpeedup(absl::Span<const StepObservation> steps,
                        absl::Span<const int> counts) {
  double before = 0, after = 0;
  for (const StepObservation& step : steps) {
    double finish = 0, balanced = 0;
    for (size_t r = 0; r < step.replicas.size(); ++r) {
      const ReplicaObservation& replica = step.replicas[r];
      finish = std::max(finish, replica.FinishSeconds(replica.planned));
      balanced = std::max(balanced, replica.FinishSeconds(counts[r]));
    }
    const double rest = std::max(0.0, step.StepSeconds() - finish);
    before += finish + rest;
    after += balanced + rest;
  }
  return after > 0 ? before / after : 1;
}

absl::StatusOr<SlownessVerdict> JitterOrPersistent(
    absl::Span<const StepObservation> steps, const SlownessOptions& options) {
  if (steps.size() < kQuarters) {
    return absl::FailedPreconditionError(absl::StrCat(
        steps.size(), " steps do not tell jitter from persistence"));
  }
  SlownessVerdict verdict;
  DropPlannerOptions planner = options.planner;
  if (options.may_rebalance) {
    planner.max_replica_cut_share =
        std::min(planner.max_replica_cut_share, options.max_replica_cut_share);
  }
  DP_ASSIGN_OR_RETURN(verdict.drop, PlanDrop(steps, planner));
  for (const ReplicaObservation& replica : steps[0].replicas) {
    verdict.counts.push_back(replica.planned);
  }
  DP_RETURN_IF_ERROR(ConsiderRebalance(steps, options, &verdict));
  const double drop_gain = std::max(0.0, verdict.drop.speedup - 1);
  if (options.may_rebalance &&
      verdict.rebalance_gain >= options.min_rebalance_gain) {
    verdict.remedy = Remedy::kRebalance;
    verdict.why = absl::StrCat(
        verdict.replica >= 0 ? absl::StrCat("replica ", verdict.replica,
                                            " differs from the others for long")
                             : "no replica differs from the others any more",
        "; moving micro-batches gains ", Percent(verdict.rebalance_gain));
  } else if (options.may_drop && drop_gain >= options.min_drop_gain) {
    verdict.remedy = Remedy::kDrop;
    verdict.why = absl::StrCat("dropping ", Percent(verdict.drop.drop_share),
                               " gains ", Percent(drop_gain));
  } else {
    verdict.why = absl::StrCat(
        options.may_drop
            ? absl::StrCat("dropping would gain ", Percent(drop_gain))
            : "",
        options.may_drop && options.may_rebalance ? ", " : "",
        options.may_rebalance ? absl::StrCat("moving micro-batches ",
                                             Percent(verdict.rebalance_gain))
                              : "");
  }
  return verdict;
}

}  // namespace deltapipe
