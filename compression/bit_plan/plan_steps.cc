#include "compression/bit_plan/plan_steps.h"

#include <algorithm>

namespace deltapipe {
namespace {

PlanStep StepBetween(const BitPlanItem& item, int from, int to) {
  PlanStep step;
  step.from = from;
  step.to = to;
  step.bytes = item.levels[to].bytes - item.levels[from].bytes;
  step.saving = item.levels[from].cost - item.levels[to].cost;
  step.saving_per_byte = step.saving / static_cast<double>(step.bytes);
  return step;
}

void AddSteps(const BitPlanItem& item, int index,
              std::vector<PlanStep>* steps) {
  const size_t begin = steps->size();
  int last = FirstLevel(item);
  for (int i = last + 1; i < item.levels.size(); ++i) {
    const bool saves = item.levels[i].cost < item.levels[last].cost;
    if (!saves || item.levels[i].bytes == item.levels[last].bytes) {
      if (!saves) continue;
      // As many bytes at less cost: takes the place of the last one.
      if (steps->size() > begin) {
        last = steps->back().from;
        steps->pop_back();
      }
    }
    PlanStep step = StepBetween(item, last, i);
    // A step that saves more per byte than the one before it joins it.
    while (steps->size() > begin &&
           steps->back().saving_per_byte <= step.saving_per_byte) {
      step = StepBetween(item, steps->back().from, i);
      steps->pop_back();
    }
    step.item = index;
    steps->push_back(step);
    last = i;
  }
}

}  // namespace

int FirstLevel(const BitPlanItem& item) {
  int first = 0;
  while (first + 1 < item.levels.size() &&
         item.levels[first + 1].bytes == item.levels[0].bytes) {
    ++first;
  }
  return first;
}

std::vector<PlanStep> HullSteps(absl::Span<const BitPlanItem> items) {
  std::vector<PlanStep> steps;
  steps.reserve(3 * items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    AddSteps(items[i], static_cast<int>(i), &steps);
  }
  std::sort(steps.begin(), steps.end(),
            [](const PlanStep& a, const PlanStep& b) {
              if (a.saving_per_byte != b.saving_per_byte) {
                return a.saving_per_byte > b.saving_per_byte;
              }
              return a.item != b.item ? a.item < b.item : a.from < b.from;
            });
  return steps;
}

}  // namespace deltapipe
