#include "compression/bit_plan/recompute_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/offload_plan.h"

namespace deltapipe {
namespace {

// Fewer recomputed layers are worth so much more variance.
constexpr double kWorthIt = 1.05;
// A forward pass takes half as long as a backward pass.
constexpr double kForwardsOfAStep = 3;

class Recomputed {
 public:
  explicit Recomputed(const RecomputeQuestion& question)
      : question_(question), chosen_(question.layers.size(), false) {}

  void Add(size_t layer) { chosen_[layer] = true; }

  bool Has(const std::string& layer) const {
    for (size_t i = 0; i < chosen_.size(); ++i) {
      if (chosen_[i] && question_.layers[i].name == layer) return true;
    }
    return false;
  }

  /// What they take, less what they take no more, and a micro-batch's share of
  /// the room that the largest of them needs while it is computed again.
  int64_t Bytes() const {
    int64_t bytes = 0;
    int64_t largest = 0;
    for (size_t i = 0; i < chosen_.size(); ++i) {
      const SavedRoom::Layer& layer = question_.layers[i];
      if (!chosen_[i]) continue;
      bytes += layer.input_bytes - layer.exempt_bytes;
      largest =
          std::max(largest, layer.recomputed_bytes - question_.head_bytes);
    }
    const int64_t in_flight = std::max(question_.in_flight, 1);
    return bytes + (largest + in_flight - 1) / in_flight;
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (size_t i = 0; i < chosen_.size(); ++i) {
      if (chosen_[i]) names.push_back(question_.layers[i].name);
    }
    return names;
  }

  /// Of the tensors that are packed beside these layers.
  TensorBitsPart Rest() const {
    const TensorBitsQuestion& all = question_.tensors;
    return TensorBitsPart(
        all, [&](size_t i) { return !Has(all.measurements[i].tensor.layer); });
  }

 private:
  const RecomputeQuestion& question_;
  std::vector<bool> chosen_;
};

// By measurement; coefficients that are no numbers count as nothing.
double CostOf(const TensorBitsQuestion& question, size_t i,
              const std::map<std::string, PlannedTensor>& planned) {
  const auto found = planned.find(question.measurements[i].tensor.name);
  if (found == planned.end() || !question.IsMeasured(i)) return 0;
  return LevelCost(question, i, found->second.value);
}

// Layers from the one that costs most to the one that costs least: with this
// plan or, without one, by the sums of coefficients.
std::vector<size_t> Costliest(
    const RecomputeQuestion& question,
    const std::optional<std::map<std::string, PlannedTensor>>& plan) {
  std::vector<double> costs(question.layers.size(), 0);
  const TensorBitsQuestion& tensors = question.tensors;
  for (size_t i = 0; i < tensors.measurements.size(); ++i) {
    for (size_t k = 0; k < costs.size(); ++k) {
      if (question.layers[k].name != tensors.measurements[i].tensor.layer) {
        continue;
      }
      costs[k] += plan.has_value()        ? CostOf(tensors, i, *plan)
                  : tensors.IsMeasured(i) ? tensors.coefficients[i]
                                          : 0;
    }
  }
  std::vector<size_t> order(costs.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  return order;
}

}  // namespace

int LayersForSlowdown(int num_layers, double slowdown) {
  const double layers = slowdown * kForwardsOfAStep * num_layers;
  // Written so that 1/3 of a step is all layers, whatever it was rounded to.
  return static_cast<int>(
      std::min<double>(num_layers, std::floor(layers + 1e-6)));
}

absl::StatusOr<RecomputePlan> PlanWithRecompute(
    const RecomputeQuestion& question, int64_t budget_bytes) {
  std::vector<std::pair<RecomputePlan, double>> plans;
  absl::Status error;
  Recomputed recomputed(question);
  std::vector<size_t> order;
  const auto most = static_cast<size_t>(
      std::max(0, std::min(question.most_layers,
                           static_cast<int>(question.layers.size()))));
  for (size_t count = 0; count <= most; ++count) {
    if (count > 0) recomputed.Add(order[count - 1]);
    const TensorBitsPart rest = recomputed.Rest();
    const int64_t room = budget_bytes - recomputed.Bytes();
    absl::StatusOr<std::map<std::string, PlannedTensor>> planned =
        room < 0 ? absl::ResourceExhaustedError("no room for any tensor")
                 : PlanWithOffload(rest.question, room, question.host_bytes);
    if (!planned.ok()) {
      if (!absl::IsResourceExhausted(planned.status())) {
        return planned.status();
      }
      if (error.ok()) error = planned.status();
    }
    if (planned.ok()) {
      double cost = 0;
      for (size_t i = 0; i < rest.question.measurements.size(); ++i) {
        cost += CostOf(rest.question, i, *planned);
      }
      plans.emplace_back(RecomputePlan{*planned, recomputed.Names()}, cost);
    }
    if (count == 0) {
      order = Costliest(
          question, planned.ok() ? std::make_optional(*planned) : std::nullopt);
    }
  }
  if (plans.empty()) return error;
  double least = std::numeric_limits<double>::infinity();
  for (const auto& plan : plans) least = std::min(least, plan.second);
  for (auto& plan : plans) {
    if (plan.second <= least * kWorthIt) return std::move(plan.first);
  }
  return absl::InternalError("the least cost is nobody's");
}

int64_t LeastBudget(const RecomputeQuestion& question) {
  Recomputed recomputed(question);
  const std::vector<size_t> order = Costliest(question, std::nullopt);
  int64_t least = LeastDeviceBytes(question.tensors, question.host_bytes);
  for (int count = 1; count <= std::min<int>(question.most_layers,
                                             static_cast<int>(order.size()));
       ++count) {
    recomputed.Add(order[static_cast<size_t>(count - 1)]);
    const TensorBitsPart rest = recomputed.Rest();
    least =
        std::min(least, LeastDeviceBytes(rest.question, question.host_bytes) +
                            recomputed.Bytes());
  }
  return least;
}

}  // namespace deltapipe
