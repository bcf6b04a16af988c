// The exact method of bit_plan.h: dynamic programming over items, in which a
// state is a choice of levels for the first items and survives if no other has
// at most its bytes and its cost, and if what it costs at least at the end is
// below the best plan known.
//
// That lower bound is the cost of the rest with parts of steps allowed
// (plan_steps.h); the best plan known is improved by every state, filled up
// with whole steps. With both, thousands of states suffice where there would be
// 5^64. Sizes are not scaled: what is found is the optimum, up to the rounding
// of sums, or to kPlanTolerance where plans that nearly fill the budget are too
// many to tell apart.
//
// Nauss, "The 0-1 Knapsack Problem with Multiple Choice Constraints", European
// Journal of Operational Research 2, 1978; Pisinger, "A Minimal Algorithm for
// the Multiple-Choice Knapsack Problem", EJOR 83, 1995. Pure.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_EXACT_PLAN_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_EXACT_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compression/bit_plan/bit_plan.h"
#include "compression/bit_plan/plan_steps.h"

namespace deltapipe {

/// States that are kept in all; 24 bytes each.
inline constexpr size_t kMaxPlanStates = 1000000;

/// Where thousands of plans differ by less, the search ends this share of the
/// cost above the least one at most.
inline constexpr double kPlanTolerance = 1e-5;

/// Improves `levels`, a plan within the budget. False if kMaxPlanStates did not
/// suffice: then `levels` is the best plan met. Items are in order.
bool FindExactLevels(absl::Span<const BitPlanItem> items, int64_t budget_bytes,
                     std::vector<int>* levels);

/// Improves `levels` by solving exactly for the kMaxExactItems items whose
/// steps save about as much per byte as the first one that was not taken; all
/// others keep their level (Pisinger's core). For more items than can be
/// solved. `steps` are HullSteps(items).
void ImproveCore(absl::Span<const BitPlanItem> items,
                 absl::Span<const PlanStep> steps, int64_t budget_bytes,
                 std::vector<int>* levels);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_EXACT_PLAN_H_
