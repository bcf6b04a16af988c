#include "compression/bit_plan/greedy_plan.h"

#include <queue>
#include <utility>

namespace deltapipe {
namespace {

// Exchanges look at all pairs of items: of more than these the last step is too
// small a part of the whole to matter.
constexpr size_t kMaxExchangeItems = 128;
constexpr int kMaxExchanges = 1000;
// Of so few items, each level of each is tried as the first choice (Sahni,
// "Approximate Algorithms for the 0/1 Knapsack Problem", JACM 22, 1975).
constexpr size_t kMaxFirstChoiceItems = 32;

class GreedyPlanner {
 public:
  GreedyPlanner(absl::Span<const BitPlanItem> items,
                absl::Span<const PlanStep> steps, int64_t budget_bytes)
      : items_(items), steps_(steps), slack_(budget_bytes) {
    levels_.reserve(items.size());
    for (const BitPlanItem& item : items) {
      levels_.push_back(FirstLevel(item));
      slack_ -= item.levels[levels_.back()].bytes;
    }
  }

  // Takes one level before all others and leaves it. False if it does not fit.
  bool Fix(int item, int level) {
    slack_ += Current(item).bytes;
    levels_[item] = level;
    slack_ -= Current(item).bytes;
    fixed_item_ = item;
    return slack_ >= 0;
  }

  void Plan() {
    TakeHullSteps();
    FillUp();
    Exchange();
  }

  double cost() const {
    double cost = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      cost += Current(static_cast<int>(i)).cost;
    }
    return cost;
  }
  std::vector<int> levels() && { return std::move(levels_); }

 private:
  // In the order of savings per byte; what does not fit ends its item.
  void TakeHullSteps() {
    for (const PlanStep& step : steps_) {
      if (levels_[step.item] != step.from || step.bytes > slack_) continue;
      if (step.item == fixed_item_) continue;
      levels_[step.item] = step.to;
      slack_ -= step.bytes;
    }
  }

  // Then whatever fits, to any level.
  void FillUp() {
    const auto worse = [](const PlanStep& a, const PlanStep& b) {
      if (a.saving_per_byte != b.saving_per_byte) {
        return a.saving_per_byte < b.saving_per_byte;
      }
      return a.item > b.item;
    };
    std::priority_queue<PlanStep, std::vector<PlanStep>, decltype(worse)> queue(
        worse);
    const auto push_best = [&](int item) {
      const PlanStep step = BestStep(item);
      if (step.saving > 0) queue.push(step);
    };
    for (size_t i = 0; i < items_.size(); ++i) push_best(static_cast<int>(i));
    while (!queue.empty()) {
      const PlanStep step = queue.top();
      queue.pop();
      if (step.bytes <= slack_) {
        levels_[step.item] = step.to;
        slack_ -= step.bytes;
      }
      push_best(step.item);
    }
  }

  // Lowers one item and raises another, while that saves cost.
  void Exchange() {
    if (items_.size() > kMaxExchangeItems) return;
    for (int i = 0; i < kMaxExchanges; ++i) {
      if (!ExchangeBestPair()) return;
      FillUp();
    }
  }

  const BitLevel& Current(int item) const {
    return items_[item].levels[levels_[item]];
  }

  // Of the levels above an item's own that fit, the one that saves most per
  // byte; without a saving if there is none.
  PlanStep BestStep(int item) const {
    const std::vector<BitLevel>& levels = items_[item].levels;
    PlanStep best;
    best.item = item;
    if (item == fixed_item_) return best;
    for (int to = levels_[item] + 1; to < levels.size(); ++to) {
      const int64_t bytes = levels[to].bytes - Current(item).bytes;
      if (bytes > slack_) break;
      const double saving = Current(item).cost - levels[to].cost;
      if (!(saving > 0)) continue;
      const double per_byte = saving / static_cast<double>(bytes);
      if (best.saving > 0 && per_byte <= best.saving_per_byte) continue;
      best.from = levels_[item];
      best.to = to;
      best.bytes = bytes;
      best.saving = saving;
      best.saving_per_byte = per_byte;
    }
    return best;
  }

  bool ExchangeBestPair() {
    double best_saving = 0;
    int best_items[2], best_levels[2];
    for (int low = 0; low < items_.size(); ++low) {
      for (int to = 0; to < levels_[low]; ++to) {
        const BitLevel& lower = items_[low].levels[to];
        const double added = lower.cost - Current(low).cost;
        const int64_t room = slack_ + Current(low).bytes - lower.bytes;
        for (int high = 0; high < items_.size(); ++high) {
          if (high == low) continue;
          const std::vector<BitLevel>& levels = items_[high].levels;
          for (int up = levels_[high] + 1; up < levels.size(); ++up) {
            if (levels[up].bytes - Current(high).bytes > room) break;
            const double saving = Current(high).cost - levels[up].cost - added;
            // By more than rounding, so that no two exchanges undo each other.
            if (saving <= best_saving || saving <= 1e-12 * Current(high).cost) {
              continue;
            }
            best_saving = saving;
            best_items[0] = low;
            best_levels[0] = to;
            best_items[1] = high;
            best_levels[1] = up;
          }
        }
      }
    }
    if (best_saving == 0) return false;
    for (int i = 0; i < 2; ++i) {
      slack_ += Current(best_items[i]).bytes;
      levels_[best_items[i]] = best_levels[i];
      slack_ -= Current(best_items[i]).bytes;
    }
    return true;
  }

  absl::Span<const BitPlanItem> items_;
  absl::Span<const PlanStep> steps_;
  int64_t slack_;
  int fixed_item_ = -1;
  std::vector<int> levels_;
};

}  // namespace

std::vector<int> GreedyLevels(absl::Span<const BitPlanItem> items,
                              absl::Span<const PlanStep> steps,
                              int64_t budget_bytes) {
  GreedyPlanner best(items, steps, budget_bytes);
  best.Plan();
  if (items.size() > kMaxFirstChoiceItems) return std::move(best).levels();
  for (size_t i = 0; i < items.size(); ++i) {
    for (size_t level = 0; level < items[i].levels.size(); ++level) {
      GreedyPlanner planner(items, steps, budget_bytes);
      if (!planner.Fix(static_cast<int>(i), static_cast<int>(level))) break;
      planner.Plan();
      if (planner.cost() < best.cost()) best = planner;
    }
  }
  return std::move(best).levels();
}

}  // namespace deltapipe
