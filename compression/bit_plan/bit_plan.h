// Bit planner: which bits to give to whom under a budget of bytes.
//
// minimise sum_i c_i(b_i) subject to sum_i size_i(b_i) <= budget, where each
// item has a few levels. Policies for saved activations call it between steps.
// Exact, by dynamic programming over what is left of all pairs of bytes
// and cost once bounds have been applied (exact_plan.h), for up to
// kMaxExactItems items; above them greedy with fill-up, then exact for
// those at the margin. Pure functions, thread-safe.
//
//   DP_ASSIGN_OR_RETURN(BitPlan plan, PlanBits(items, budget_bytes));
//   const int64_t bytes = items[0].levels[plan.levels[0]].bytes;
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_PLAN_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace deltapipe {

struct BitLevel {
  int64_t bytes = 0;
  /// The variance that this level adds to the gradient; not negative.
  double cost = 0;
};

struct BitPlanItem {
  /// For errors.
  std::string name;
  /// From small to large; where bytes grow, cost does not.
  std::vector<BitLevel> levels;
};

struct BitPlan {
  /// By item, the index of its level.
  std::vector<int> levels;
  int64_t bytes = 0;
  double cost = 0;
  /// Proven: no plan within the budget costs less, up to the rounding of sums,
  /// or up to 1e-5 of it where thousands of plans are as close.
  bool is_exact = false;
};

inline constexpr int kMaxExactItems = 64;

/// RESOURCE_EXHAUSTED, with the smallest budget that works and the largest
/// items, if even the first levels do not fit. INVALID_ARGUMENT, naming the
/// item, for levels out of order, none, bytes below 0 or above 2^46, or a cost
/// that is negative or no finite number.
absl::StatusOr<BitPlan> PlanBits(absl::Span<const BitPlanItem> items,
                                 int64_t budget_bytes);

/// The greedy method alone, for any number of items: starts at the first levels
/// and takes, time and again, the step that saves most cost per byte of those
/// that fit, until none fits. Of up to 128 items it then exchanges levels of
/// two while that saves cost; of up to 32 it does so from each level of each
/// item as the first choice. Errors as PlanBits.
absl::StatusOr<BitPlan> PlanBitsGreedily(absl::Span<const BitPlanItem> items,
                                         int64_t budget_bytes);

/// Cost of a tensor at `bits`, where it is coefficient / (2^bits - 1)^2 (ActNN,
/// section 4.2), and 0 at 16 or more; infinite below 1 bit.
double QuantisationCost(double coefficient, int bits);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_PLAN_H_
