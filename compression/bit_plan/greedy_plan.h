// The greedy method of bit_plan.h, for items that are known to be in order and
// a budget that is known to suffice. Pure.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_GREEDY_PLAN_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_GREEDY_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compression/bit_plan/bit_plan.h"
#include "compression/bit_plan/plan_steps.h"

namespace deltapipe {

/// By item, the index of its level. `steps` are HullSteps(items).
std::vector<int> GreedyLevels(absl::Span<const BitPlanItem> items,
                              absl::Span<const PlanStep> steps,
                              int64_t budget_bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_GREEDY_PLAN_H_
