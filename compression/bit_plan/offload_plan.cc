#include "compression/bit_plan/offload_plan.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"

namespace deltapipe {
namespace {

// Sums that are tried between one that works and one that does not.
constexpr int kTries = 10;

using Plan = std::map<std::string, PlannedTensor>;

TensorBitsQuestion WithoutDerivatives(TensorBitsQuestion question) {
  question.derivative_coefficients.clear();
  return question;
}

class OffloadPlanner {
 public:
  /// `with_derivatives` is of the plan by which tensors are placed: those that
  /// stay on the device may have them in any case.
  OffloadPlanner(const TensorBitsQuestion& question, bool with_derivatives,
                 int64_t device_bytes, int64_t host_bytes)
      : question_(question),
        placed_(with_derivatives ? question : WithoutDerivatives(question)),
        device_bytes_(device_bytes),
        host_bytes_(host_bytes) {
    std::set<std::string> seen;
    for (size_t i = 0; i < question.measurements.size(); ++i) {
      if (seen.insert(question.measurements[i].tensor.name).second) {
        places_.push_back(i);
      }
    }
  }

  struct Answer {
    Plan plan;
    double cost = 0;
  };

  /// Replaces *best by what costs less.
  static void TakeBetter(std::optional<Answer> found,
                         std::optional<Answer>* best) {
    const bool is_better = found.has_value() &&
                           (!best->has_value() || found->cost < (*best)->cost);
    if (is_better) *best = std::move(found);
  }

  /// None: there is none for which the lowest levels could be placed.
  absl::StatusOr<std::optional<Answer>> Solve() const {
    int64_t works = LeastBudget(placed_);
    int64_t fails = device_bytes_ + host_bytes_;
    if (fails < works) return std::nullopt;
    std::optional<Answer> best;
    DP_ASSIGN_OR_RETURN(best, Try(fails));
    if (!best.has_value()) {
      DP_ASSIGN_OR_RETURN(best, Try(works));
      if (!best.has_value()) return std::nullopt;
      // With all on the device.
      works = std::max(works, device_bytes_);
      DP_ASSIGN_OR_RETURN(std::optional<Answer> found, Try(works));
      TakeBetter(std::move(found), &best);
      for (int i = 0; i < kTries && works + 1 < fails; ++i) {
        const int64_t middle = works + (fails - works) / 2;
        DP_ASSIGN_OR_RETURN(found, Try(middle));
        (found.has_value() ? works : fails) = middle;
        TakeBetter(std::move(found), &best);
      }
    }
    DP_RETURN_IF_ERROR(FillUp(&*best));
    return best;
  }

  /// What the device must have room for.
  int64_t LeastOnDevice() const {
    auto lowest = PlanBudgetBits(placed_, LeastBudget(placed_));
    return lowest.ok() ? Place(&*lowest) : LeastBudget(placed_);
  }

 private:
  /// Marks what goes to the host: of what may, from the first one saved on and
  /// until the rest fits the device, all that fits the host. Returns what is
  /// left on the device.
  int64_t Place(Plan* plan) const {
    int64_t device = 0;
    for (const size_t i : places_) device += BytesOf(i, *plan);
    int64_t host = 0;
    for (const size_t i : places_) {
      if (device <= device_bytes_) break;
      const int64_t bytes = BytesOf(i, *plan);
      if (!MayGo(i, *plan) || host + bytes > host_bytes_) continue;
      PlannedOf(i, plan)->is_offloaded = true;
      host += bytes;
      device -= bytes;
    }
    return device;
  }

  PlannedTensor* PlannedOf(size_t i, Plan* plan) const {
    return &plan->at(question_.measurements[i].tensor.name);
  }
  const PlannedTensor& PlannedOf(size_t i, const Plan& plan) const {
    return plan.at(question_.measurements[i].tensor.name);
  }
  int64_t BytesOf(size_t i, const Plan& plan) const {
    return LevelBytes(question_, i, PlannedOf(i, plan).value);
  }
  /// What is packed is moved, by codecs that make it smaller, and no
  /// derivative is.
  bool MayGo(size_t i, const Plan& plan) const {
    const SavedTensor& tensor = question_.measurements[i].tensor;
    return PlannedOf(i, plan).value > 0 &&
           BytesOf(i, plan) < tensor.num_elements * tensor.element_bytes;
  }
  double CostOf(const Plan& plan) const {
    double cost = 0;
    for (const size_t i : places_) {
      if (!question_.IsMeasured(i)) continue;
      cost += LevelCost(question_, i, PlannedOf(i, plan).value);
    }
    return cost;
  }

  absl::StatusOr<std::optional<Answer>> Try(int64_t sum) const {
    Answer answer;
    DP_ASSIGN_OR_RETURN(answer.plan, PlanBudgetBits(placed_, sum));
    if (Place(&answer.plan) > device_bytes_) return std::nullopt;
    answer.cost = CostOf(answer.plan);
    return answer;
  }

  /// Plans each side anew, where that spares cost: what one of them leaves of
  /// its budget was no use to the other one.
  absl::Status FillUp(Answer* best) const {
    for (const bool is_host : {false, true}) {
      const auto is_there = [&](size_t i) {
        return PlannedOf(i, best->plan).is_offloaded == is_host;
      };
      TensorBitsPart part(question_, is_there);
      std::vector<int> packed_levels;
      if (is_host) {
        for (const int level : question_.levels) {
          if (level < kExactBits) packed_levels.push_back(level);
        }
        part.question.levels = packed_levels;
        part.question.derivative_coefficients.clear();
      }
      absl::StatusOr<Plan> planned =
          PlanBudgetBits(part.question, is_host ? host_bytes_ : device_bytes_);
      // The greedy method may find less than there was.
      if (absl::IsResourceExhausted(planned.status())) continue;
      DP_RETURN_IF_ERROR(planned.status());
      Answer next = *best;
      bool may_go = true;
      for (auto& [name, tensor] : *planned) {
        tensor.is_offloaded = is_host;
        next.plan[name] = tensor;
      }
      for (const size_t i : places_) {
        if (is_host && is_there(i)) may_go = may_go && MayGo(i, next.plan);
      }
      next.cost = CostOf(next.plan);
      if (may_go && next.cost < best->cost) *best = std::move(next);
    }
    return absl::OkStatus();
  }

  const TensorBitsQuestion& question_;
  const TensorBitsQuestion placed_;
  const int64_t device_bytes_;
  const int64_t host_bytes_;
  // Of measurements; the first of two of one name.
  std::vector<size_t> places_;
};

}  // namespace

absl::StatusOr<Plan> PlanWithOffload(const TensorBitsQuestion& question,
                                     int64_t device_bytes, int64_t host_bytes) {
  if (host_bytes <= 0) return PlanBudgetBits(question, device_bytes);
  std::optional<OffloadPlanner::Answer> best;
  // Derivatives cannot go to the host: they may be in the way of a better plan.
  for (const bool with_derivatives : {true, false}) {
    DP_ASSIGN_OR_RETURN(auto found, OffloadPlanner(question, with_derivatives,
                                                   device_bytes, host_bytes)
                                        .Solve());
    OffloadPlanner::TakeBetter(std::move(found), &best);
    if (question.derivative_coefficients.empty()) break;
  }
  if (!best.has_value()) {
    return absl::ResourceExhaustedError(
        "the lowest levels do not fit the device and the host");
  }
  return std::move(best->plan);
}

int64_t LeastDeviceBytes(const TensorBitsQuestion& question,
                         int64_t host_bytes) {
  if (host_bytes <= 0) return LeastBudget(question);
  return std::min(
      OffloadPlanner(question, true, 0, host_bytes).LeastOnDevice(),
      OffloadPlanner(question, false, 0, host_bytes).LeastOnDevice());
}

}  // namespace deltapipe
