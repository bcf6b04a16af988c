#include "compression/bit_plan/bit_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "compression/bit_plan/exact_plan.h"
#include "compression/bit_plan/greedy_plan.h"
#include "compression/bit_plan/plan_steps.h"

namespace deltapipe {
namespace {

constexpr int64_t kMaxLevelBytes = int64_t{1} << 46;
constexpr size_t kNamedItems = 3;

absl::Status CheckLevels(const BitPlanItem& item) {
  const auto refuse = [&](size_t level, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan of bits failed: '", item.name, "', level ", level, ": ", what));
  };
  if (item.levels.empty()) return refuse(0, "expected one level at least");
  for (size_t i = 0; i < item.levels.size(); ++i) {
    const BitLevel& level = item.levels[i];
    if (level.bytes < 0 || level.bytes > kMaxLevelBytes) {
      return refuse(i, absl::StrCat(level.bytes, " bytes, expected 0 to ",
                                    kMaxLevelBytes));
    }
    if (!(level.cost >= 0) || std::isinf(level.cost)) {
      return refuse(i, absl::StrCat("cost ", level.cost,
                                    ", expected a finite number >= 0"));
    }
    if (i == 0) continue;
    const BitLevel& before = item.levels[i - 1];
    if (level.bytes < before.bytes || level.cost > before.cost) {
      return refuse(
          i, absl::StrCat(level.bytes, " bytes at cost ", level.cost, " after ",
                          before.bytes, " at ", before.cost,
                          ", expected as many bytes or more and no more cost"));
    }
  }
  return absl::OkStatus();
}

absl::Status BudgetTooSmall(absl::Span<const BitPlanItem> items, int64_t budget,
                            int64_t smallest) {
  std::vector<const BitPlanItem*> largest;
  for (const BitPlanItem& item : items) largest.push_back(&item);
  const size_t num_named = std::min(kNamedItems, largest.size());
  std::partial_sort(largest.begin(), largest.begin() + num_named, largest.end(),
                    [](const BitPlanItem* a, const BitPlanItem* b) {
                      return a->levels[0].bytes > b->levels[0].bytes;
                    });
  largest.resize(num_named);
  return absl::ResourceExhaustedError(absl::StrCat(
      "plan of bits failed: budget of ", budget, " bytes for ", items.size(),
      " tensors, expected at least ", smallest, "; the largest are ",
      absl::StrJoin(
          largest, ", ", [](std::string* out, const BitPlanItem* item) {
            absl::StrAppend(out, item->name, " (", item->levels[0].bytes, ")");
          })));
}

absl::Status Check(absl::Span<const BitPlanItem> items, int64_t budget_bytes) {
  int64_t smallest = 0;
  for (const BitPlanItem& item : items) {
    DP_RETURN_IF_ERROR(CheckLevels(item));
    if (smallest > std::numeric_limits<int64_t>::max() / 4) {
      return absl::InvalidArgumentError(
          absl::StrCat("plan of bits failed: ", items.size(),
                       " tensors take more bytes than can be counted"));
    }
    smallest += item.levels[0].bytes;
  }
  if (smallest <= budget_bytes) return absl::OkStatus();
  return BudgetTooSmall(items, budget_bytes, smallest);
}

BitPlan PlanOf(absl::Span<const BitPlanItem> items, std::vector<int> levels) {
  BitPlan plan;
  plan.levels = std::move(levels);
  for (size_t i = 0; i < items.size(); ++i) {
    plan.bytes += items[i].levels[plan.levels[i]].bytes;
    plan.cost += items[i].levels[plan.levels[i]].cost;
  }
  return plan;
}

}  // namespace

absl::StatusOr<BitPlan> PlanBits(absl::Span<const BitPlanItem> items,
                                 int64_t budget_bytes) {
  DP_RETURN_IF_ERROR(Check(items, budget_bytes));
  const std::vector<PlanStep> steps = HullSteps(items);
  std::vector<int> levels = GreedyLevels(items, steps, budget_bytes);
  bool is_exact = false;
  if (items.size() <= kMaxExactItems) {
    is_exact = FindExactLevels(items, budget_bytes, &levels);
  } else {
    ImproveCore(items, steps, budget_bytes, &levels);
  }
  BitPlan plan = PlanOf(items, std::move(levels));
  plan.is_exact = is_exact;
  return plan;
}

absl::StatusOr<BitPlan> PlanBitsGreedily(absl::Span<const BitPlanItem> items,
                                         int64_t budget_bytes) {
  DP_RETURN_IF_ERROR(Check(items, budget_bytes));
  return PlanOf(items, GreedyLevels(items, HullSteps(items), budget_bytes));
}

double QuantisationCost(double coefficient, int bits) {
  if (bits < 1) return std::numeric_limits<double>::infinity();
  if (bits >= 16) return 0;
  const double levels = std::ldexp(1.0, bits) - 1;
  return coefficient / (levels * levels);
}

}  // namespace deltapipe
