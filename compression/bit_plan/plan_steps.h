// The steps that are worth taking: per item, the lower convex hull of cost over
// bytes, as steps from one level to a higher one.
//
// What both methods of bit_plan.h go by: taken in the order of what they save
// per byte they solve the problem in which parts of a step may be taken, whose
// cost is a lower bound of the real one (Sinha and Zoltners, "The
// Multiple-Choice Knapsack Problem", Operations Research 27, 1979). Pure.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_PLAN_STEPS_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_PLAN_STEPS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compression/bit_plan/bit_plan.h"

namespace deltapipe {

struct PlanStep {
  int item = 0;
  int from = 0;
  int to = 0;
  int64_t bytes = 0;
  /// Above 0.
  double saving = 0;
  double saving_per_byte = 0;
};

/// The level of least cost among those of as few bytes as the first one.
int FirstLevel(const BitPlanItem& item);

/// From the most to the least saving per byte; equal ones by item. Of one item
/// they begin at FirstLevel and follow each other.
std::vector<PlanStep> HullSteps(absl::Span<const BitPlanItem> items);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_PLAN_STEPS_H_
