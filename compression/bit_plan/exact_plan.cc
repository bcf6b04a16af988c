#include "compression/bit_plan/exact_plan.h"

#include <algorithm>
#include <limits>

namespace deltapipe {
namespace {

// Of sums of 64 doubles.
constexpr double kRounding = 1e-12;
// A layer that has more: plans that are nearly alike.
constexpr size_t kManyStates = 4000;
constexpr size_t kFilledStates = 200;

// The items from one on, solved with parts of steps allowed.
class RestOfPlan {
 public:
  RestOfPlan(absl::Span<const BitPlanItem> items, size_t begin)
      : steps_(HullSteps(items.subspan(begin))) {
    for (const BitPlanItem& item : items.subspan(begin)) {
      const BitLevel& first = item.levels[FirstLevel(item)];
      first_bytes_ += first.bytes;
      first_cost_ += first.cost;
    }
    bytes_.push_back(0);
    savings_.push_back(0);
    for (const PlanStep& step : steps_) {
      bytes_.push_back(bytes_.back() + step.bytes);
      savings_.push_back(savings_.back() + step.saving);
    }
  }

  struct Bound {
    bool fits = false;
    /// No plan of the rest costs less.
    double low = 0;
    /// Whole steps that fit, from the first on, and what they leave.
    size_t num_steps = 0;
    double reached = 0;
  };
  Bound BoundFor(int64_t room) const {
    Bound bound;
    room -= first_bytes_;
    if (room < 0) return bound;
    bound.fits = true;
    bound.num_steps = std::upper_bound(bytes_.begin(), bytes_.end(), room) -
                      bytes_.begin() - 1;
    bound.reached = first_cost_ - savings_[bound.num_steps];
    bound.low = bound.reached;
    if (bound.num_steps < steps_.size()) {
      bound.low -= steps_[bound.num_steps].saving_per_byte *
                   static_cast<double>(room - bytes_[bound.num_steps]);
    }
    return bound;
  }
  const std::vector<PlanStep>& steps() const { return steps_; }
  double first_cost() const { return first_cost_; }
  int64_t first_bytes() const { return first_bytes_; }

 private:
  const std::vector<PlanStep> steps_;
  int64_t first_bytes_ = 0;
  double first_cost_ = 0;
  // Before each step, and after the last.
  std::vector<int64_t> bytes_;
  std::vector<double> savings_;
};

struct State {
  int64_t bytes;
  double cost;
  int32_t parent;
  int32_t level;
};

class ExactPlanner {
 public:
  ExactPlanner(absl::Span<const BitPlanItem> items, int64_t budget)
      : items_(items), budget_(budget) {
    for (size_t begin = 0; begin <= items.size(); ++begin) {
      rests_.emplace_back(items, begin);
    }
  }

  bool Improve(std::vector<int>* levels) {
    best_cost_ = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      best_cost_ += items_[i].levels[(*levels)[i]].cost;
    }
    layers_.push_back({State{0, 0, -1, -1}});
    size_t num_states = 1;
    bool is_complete = true;
    while (is_complete && layers_.size() <= items_.size() &&
           !layers_.back().empty()) {
      is_complete = AddLayer(kMaxPlanStates - num_states);
      num_states += layers_.back().size();
      if (layers_.back().size() > kManyStates) {
        tolerance_ = kPlanTolerance;
        FillUpSome();
      }
    }
    if (best_.layer > 0) ReadBest(levels);
    return is_complete;
  }

 private:
  // Where the best plan was met: a state, and steps of the rest.
  struct Met {
    size_t layer = 0;
    int32_t parent = -1;
    int32_t level = -1;
    // The first so many, or those listed.
    size_t num_steps = 0;
    std::vector<size_t> listed;
  };

  // What the tolerance hides does not count as an improvement.
  bool IsBelowBest(double cost) const {
    return cost < best_cost_ * (1 - tolerance_);
  }

  // False if it would have more than `max_states`.
  bool AddLayer(size_t max_states) {
    const size_t item = layers_.size() - 1;
    const std::vector<State>& before = layers_.back();
    const RestOfPlan& rest = rests_[item + 1];
    std::vector<State> states;
    for (size_t parent = 0; parent < before.size(); ++parent) {
      for (size_t level = 0; level < items_[item].levels.size(); ++level) {
        const BitLevel& chosen = items_[item].levels[level];
        const State state{before[parent].bytes + chosen.bytes,
                          before[parent].cost + chosen.cost,
                          static_cast<int32_t>(parent),
                          static_cast<int32_t>(level)};
        const auto bound = rest.BoundFor(budget_ - state.bytes);
        if (!bound.fits) break;
        if (!IsBelowBest(state.cost + bound.low)) continue;
        if (IsBelowBest(state.cost + bound.reached)) {
          best_cost_ = state.cost + bound.reached;
          best_ = {item + 1, state.parent, state.level, bound.num_steps, {}};
        }
        states.push_back(state);
      }
    }
    KeepFront(item, &states);
    const bool fits = states.size() <= max_states;
    layers_.push_back(std::move(states));
    return fits;
  }

  // Completes some states with every step that still fits: plans that leave
  // nothing of the budget end the search where bounds tell little apart.
  void FillUpSome() {
    const size_t layer = layers_.size() - 1;
    const std::vector<State>& states = layers_.back();
    const RestOfPlan& rest = rests_[layer];
    const size_t stride = std::max<size_t>(states.size() / kFilledStates, 1);
    std::vector<int> levels(items_.size() - layer);
    std::vector<size_t> taken;
    for (size_t i = 0; i < states.size(); i += stride) {
      for (size_t k = 0; k < levels.size(); ++k) {
        levels[k] = FirstLevel(items_[layer + k]);
      }
      taken.clear();
      double cost = states[i].cost + rest.first_cost();
      int64_t room = budget_ - states[i].bytes - rest.first_bytes();
      for (size_t k = 0; k < rest.steps().size(); ++k) {
        const PlanStep& step = rest.steps()[k];
        if (step.bytes > room || levels[step.item] != step.from) continue;
        levels[step.item] = step.to;
        room -= step.bytes;
        cost -= step.saving;
        taken.push_back(k);
      }
      if (!(cost < best_cost_)) continue;
      best_cost_ = cost;
      best_ = {layer, states[i].parent, states[i].level, 0, taken};
    }
  }

  // Those that nothing beats in both, and that may still beat the best.
  void KeepFront(size_t item, std::vector<State>* states) const {
    std::sort(states->begin(), states->end(),
              [](const State& a, const State& b) {
                return a.bytes != b.bytes ? a.bytes < b.bytes : a.cost < b.cost;
              });
    double least = std::numeric_limits<double>::infinity();
    const RestOfPlan& rest = rests_[item + 1];
    const auto end =
        std::remove_if(states->begin(), states->end(), [&](const State& state) {
          if (state.cost >= least) return true;
          least = state.cost;
          return !IsBelowBest(state.cost +
                              rest.BoundFor(budget_ - state.bytes).low);
        });
    states->erase(end, states->end());
  }

  void ReadBest(std::vector<int>* levels) const {
    int32_t parent = best_.parent;
    int32_t level = best_.level;
    for (size_t layer = best_.layer; layer > 0; --layer) {
      (*levels)[layer - 1] = level;
      const State& state = layers_[layer - 1][parent];
      parent = state.parent;
      level = state.level;
    }
    for (size_t i = best_.layer; i < items_.size(); ++i) {
      (*levels)[i] = FirstLevel(items_[i]);
    }
    const std::vector<PlanStep>& steps = rests_[best_.layer].steps();
    for (size_t i = 0; i < best_.num_steps; ++i) {
      (*levels)[best_.layer + steps[i].item] = steps[i].to;
    }
    for (const size_t i : best_.listed) {
      (*levels)[best_.layer + steps[i].item] = steps[i].to;
    }
  }

  const absl::Span<const BitPlanItem> items_;
  const int64_t budget_;
  std::vector<RestOfPlan> rests_;
  // layers_[i]: states of the first i items.
  std::vector<std::vector<State>> layers_;
  double best_cost_ = 0;
  double tolerance_ = kRounding;
  Met best_;
};

}  // namespace

bool FindExactLevels(absl::Span<const BitPlanItem> items, int64_t budget_bytes,
                     std::vector<int>* levels) {
  return ExactPlanner(items, budget_bytes).Improve(levels);
}

void ImproveCore(absl::Span<const BitPlanItem> items,
                 absl::Span<const PlanStep> steps, int64_t budget_bytes,
                 std::vector<int>* levels) {
  const auto first_left = std::find_if(
      steps.begin(), steps.end(),
      [&](const PlanStep& step) { return (*levels)[step.item] < step.to; });
  std::vector<bool> is_core(items.size(), false);
  std::vector<int> core;
  const auto add = [&](const PlanStep& step) {
    if (is_core[step.item] || core.size() == kMaxExactItems) return;
    is_core[step.item] = true;
    core.push_back(step.item);
  };
  auto before = first_left, after = first_left;
  while (core.size() < kMaxExactItems &&
         (before != steps.begin() || after != steps.end())) {
    if (before != steps.begin()) add(*--before);
    if (after != steps.end()) add(*after++);
  }

  int64_t room = budget_bytes;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!is_core[i]) room -= items[i].levels[(*levels)[i]].bytes;
  }
  std::vector<BitPlanItem> core_items;
  std::vector<int> core_levels;
  for (const int item : core) {
    core_items.push_back(items[item]);
    core_levels.push_back((*levels)[item]);
  }
  FindExactLevels(core_items, room, &core_levels);
  for (size_t i = 0; i < core.size(); ++i) (*levels)[core[i]] = core_levels[i];
}

}  // namespace deltapipe
