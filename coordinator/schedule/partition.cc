#include "coordinator/schedule/partition.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

absl::Status CheckCosts(const std::vector<double>& costs, int num_stages) {
  if (num_stages < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected at least 1 stage, got ", num_stages));
  }
  if (static_cast<size_t>(num_stages) > costs.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "more stages than layers: ", num_stages, " stages, ", costs.size(),
        " layers; lower parallel.stages or raise model.layers"));
  }
  for (size_t i = 0; i < costs.size(); ++i) {
    if (!(costs[i] >= 0) || !std::isfinite(costs[i])) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cost of layer ", i, ": expected a finite number of seconds, got ",
          costs[i]));
    }
  }
  return absl::OkStatus();
}

/// The smallest possible cost of the largest stage. best[j]: layers [0, j) in k
/// stages; grows with j, while the last stage's cost falls with its begin, so
/// that their crossing is found by bisection.
double SmallestBottleneck(const std::vector<double>& sums, int num_stages) {
  const int n = static_cast<int>(sums.size()) - 1;
  std::vector<double> best(sums.size(), kInfinity);
  for (int j = 1; j <= n; ++j) best[j] = sums[j];
  for (int k = 2; k <= num_stages; ++k) {
    std::vector<double> next(sums.size(), kInfinity);
    for (int j = k; j <= n; ++j) {
      int low = k - 1;
      int high = j - 1;
      while (low < high) {
        const int middle = (low + high) / 2;
        if (best[middle] >= sums[j] - sums[middle]) {
          high = middle;
        } else {
          low = middle + 1;
        }
      }
      next[j] = std::max(best[low], sums[j] - sums[low]);
      if (low > k - 1) {
        next[j] =
            std::min(next[j], std::max(best[low - 1], sums[j] - sums[low - 1]));
      }
    }
    best = std::move(next);
  }
  return best[n];
}

/// The cut with the least sum of squares among those without a stage above
/// `bound`.
std::vector<int> MostEvenCut(const std::vector<double>& sums, int num_stages,
                             double bound) {
  const int n = static_cast<int>(sums.size()) - 1;
  std::vector<double> best(sums.size(), kInfinity);
  best[0] = 0;
  std::vector<std::vector<int>> begins(static_cast<size_t>(num_stages),
                                       std::vector<int>(sums.size(), -1));
  for (int k = 0; k < num_stages; ++k) {
    std::vector<double> next(sums.size(), kInfinity);
    for (int j = k + 1; j <= n; ++j) {
      for (int i = j - 1; i >= k && sums[j] - sums[i] <= bound; --i) {
        const double cost = sums[j] - sums[i];
        if (best[i] + cost * cost < next[j]) {
          next[j] = best[i] + cost * cost;
          begins[k][j] = i;
        }
      }
    }
    best = std::move(next);
  }
  std::vector<int> ends(static_cast<size_t>(num_stages));
  int end = n;
  for (int k = num_stages - 1; k >= 0; --k) {
    ends[k] = end;
    end = begins[k][end];
  }
  return ends;
}

}  // namespace

absl::StatusOr<std::vector<int>> PartitionLayers(
    const std::vector<double>& layer_costs, int num_stages) {
  DP_RETURN_IF_ERROR(CheckCosts(layer_costs, num_stages));
  const bool is_free = std::all_of(layer_costs.begin(), layer_costs.end(),
                                   [](double cost) { return cost == 0; });
  std::vector<double> sums = {0};
  for (const double cost : layer_costs) {
    sums.push_back(sums.back() + (is_free ? 1 : cost));
  }
  const double bottleneck = SmallestBottleneck(sums, num_stages);
  // Differences of sums round; the slack is far below any measurement.
  return MostEvenCut(sums, num_stages, bottleneck + 1e-12 * sums.back());
}

}  // namespace deltapipe
