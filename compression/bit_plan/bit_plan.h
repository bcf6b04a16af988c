// Bit planner: which bits to give to whom under a budget of bytes.
//
// minimise sum_i c_i(b_i) subject to sum_i size_i(b_i) <= budget, where each
// item has a few levels. Policies for saved activations call it between steps.
// Exact, by dynamic programming over scaled sizes, for up to kMaxExactItems
// items; greedy with fill-up above. Pure functions, thread-safe.
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
  /// No plan within the budget costs less.
  bool is_exact = false;
};

inline constexpr int kMaxExactItems = 64;

/// RESOURCE_EXHAUSTED, with the smallest budget that works and the largest
/// items, if even the first levels do not fit. INVALID_ARGUMENT, naming the
/// item, for levels out of order, none, or a cost that is no number.
absl::StatusOr<BitPlan> PlanBits(absl::Span<const BitPlanItem> items,
                                 int64_t budget_bytes);

/// The greedy method alone, for any number of items: starts at the first levels
/// and takes, time and again, the step that saves most cost per byte of those
/// that fit, until none fits.
absl::StatusOr<BitPlan> PlanBitsGreedily(absl::Span<const BitPlanItem> items,
                                         int64_t budget_bytes);

/// Cost of a tensor at `bits`, where it is coefficient / (2^bits - 1)^2 (ActNN,
/// section 4.2), and 0 at 16 or more.
double QuantisationCost(double coefficient, int bits);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_BIT_PLAN_H_
