#include "compression/bit_plan/recompute_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
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
// Rooms that are tried between one that works and one that does not.
constexpr int kTries = 6;
// Each of these plans is a dozen.
constexpr int kTriesWithHost = 2;

using Plan = std::map<std::string, PlannedTensor>;

/// Layers that are computed again, and what they take.
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
  bool operator==(const Recomputed& other) const {
    return chosen_ == other.chosen_;
  }

  /// What they take of each micro-batch, less what they take no more, and its
  /// share of `on_top`, rounded up.
  int64_t Bytes(int64_t on_top) const {
    int64_t bytes = 0;
    for (size_t i = 0; i < chosen_.size(); ++i) {
      const SavedRoom::Layer& layer = question_.layers[i];
      if (chosen_[i]) bytes += layer.input_bytes - layer.exempt_bytes;
    }
    const int64_t in_flight = std::max(question_.in_flight, 1);
    return bytes + (on_top + in_flight - 1) / in_flight;
  }

  /// The most that is alive beyond what all micro-batches keep while one of
  /// them is computed again: less what its micro-batch kept for the head and,
  /// by `plan`, for later layers, as far as that is not filled by what comes
  /// back from the host.
  int64_t OnTop(const TensorBitsQuestion& rest, const Plan& plan) const {
    const int64_t filled = BytesOf(rest, plan, nullptr, /*on_host=*/true);
    int64_t most = 0;
    int64_t gone = question_.head_bytes;
    for (size_t i = chosen_.size(); i-- > 0;) {
      const SavedRoom::Layer& layer = question_.layers[i];
      if (chosen_[i]) {
        most = std::max(
            most, layer.recomputed_bytes - std::max<int64_t>(0, gone - filled));
      }
      gone += chosen_[i] ? layer.input_bytes
                         : layer.exempt_bytes +
                               BytesOf(rest, plan, &layer.name, false);
    }
    return most;
  }
  /// The same if nothing is given back before.
  int64_t Largest() const {
    int64_t largest = 0;
    for (size_t i = 0; i < chosen_.size(); ++i) {
      if (!chosen_[i]) continue;
      largest = std::max(largest, question_.layers[i].recomputed_bytes);
    }
    return largest;
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
  /// Of a layer, or, if null, of all.
  static int64_t BytesOf(const TensorBitsQuestion& rest, const Plan& plan,
                         const std::string* layer, bool on_host) {
    int64_t bytes = 0;
    std::set<std::string> seen;
    for (size_t i = 0; i < rest.measurements.size(); ++i) {
      const SavedTensor& tensor = rest.measurements[i].tensor;
      if (layer != nullptr && tensor.layer != *layer) continue;
      const PlannedTensor& planned = plan.at(tensor.name);
      if (planned.is_offloaded != on_host) continue;
      if (!seen.insert(tensor.name).second) continue;
      bytes += LevelBytes(rest, i, planned.value);
    }
    return bytes;
  }

  const RecomputeQuestion& question_;
  std::vector<bool> chosen_;
};

// By measurement; coefficients that are no numbers count as nothing.
double CostOf(const TensorBitsQuestion& question, size_t i,
              const Plan& planned) {
  const auto found = planned.find(question.measurements[i].tensor.name);
  if (found == planned.end() || !question.IsMeasured(i)) return 0;
  return LevelCost(question, i, found->second.value);
}

std::vector<size_t> LargestFirst(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

// Layers from the one that costs most to the one that costs least: with this
// plan or, without one, by the sums of coefficients.
std::vector<size_t> Costliest(const RecomputeQuestion& question,
                              const std::optional<Plan>& plan) {
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
  return LargestFirst(costs);
}

// Layers from the one that wins most room to the one that wins least, and of
// those that win as much the first one: it is computed again last.
std::vector<size_t> Roomiest(const RecomputeQuestion& question) {
  std::vector<double> won(question.layers.size(), 0);
  const TensorBitsQuestion& tensors = question.tensors;
  for (size_t k = 0; k < won.size(); ++k) {
    const SavedRoom::Layer& layer = question.layers[k];
    int64_t bytes = layer.exempt_bytes - layer.input_bytes;
    for (const SavedMeasurement& measurement : tensors.measurements) {
      if (measurement.tensor.layer != layer.name) continue;
      bytes += PackedBytes(measurement, kExactBits);
    }
    won[k] = static_cast<double>(bytes);
  }
  return LargestFirst(won);
}

struct Answer {
  RecomputePlan plan;
  double cost = 0;
};

/// The least cost with these layers and that much room for them.
absl::StatusOr<Answer> PlanInRoom(const RecomputeQuestion& question,
                                  const Recomputed& recomputed,
                                  const TensorBitsQuestion& rest,
                                  int64_t budget_bytes, int64_t on_top) {
  const int64_t room = budget_bytes - recomputed.Bytes(on_top);
  if (room < 0) return absl::ResourceExhaustedError("no room for any tensor");
  Answer answer;
  DP_ASSIGN_OR_RETURN(answer.plan.planned,
                      PlanWithOffload(rest, room, question.host_bytes));
  answer.plan.recomputed = recomputed.Names();
  for (size_t i = 0; i < rest.measurements.size(); ++i) {
    answer.cost += CostOf(rest, i, answer.plan.planned);
  }
  return answer;
}

/// What the lowest levels of the tensors beside these layers leave on top: no
/// plan leaves more. Which of them go to the host is not known.
int64_t MostOnTop(const Recomputed& recomputed, const TensorBitsQuestion& rest,
                  int64_t host_bytes) {
  if (host_bytes > 0) return recomputed.Largest();
  const auto lowest = PlanBudgetBits(rest, LeastBudget(rest));
  return lowest.ok() ? recomputed.OnTop(rest, *lowest) : 0;
}

/// What they leave where all else is kept as it is: no plan leaves less.
int64_t LeastOnTop(const Recomputed& recomputed,
                   const TensorBitsQuestion& rest) {
  Plan exact;
  for (const SavedMeasurement& measurement : rest.measurements) {
    exact[measurement.tensor.name].value = kExactBits;
  }
  return recomputed.OnTop(rest, exact);
}

/// The least cost with these layers. How much room they need is what the plan
/// for the others says, and that plan has what they leave.
absl::StatusOr<Answer> PlanWith(const RecomputeQuestion& question,
                                const Recomputed& recomputed,
                                int64_t budget_bytes) {
  const TensorBitsPart part = recomputed.Rest();
  const TensorBitsQuestion& rest = part.question;
  int64_t works = MostOnTop(recomputed, rest, question.host_bytes);
  DP_ASSIGN_OR_RETURN(
      Answer best, PlanInRoom(question, recomputed, rest, budget_bytes, works));
  int64_t fails = LeastOnTop(recomputed, rest) - 1;
  const int tries = question.host_bytes > 0 ? kTriesWithHost : kTries;
  for (int i = 0; i < tries && best.cost > 0 && fails + 1 < works; ++i) {
    const int64_t middle = i == 0 ? fails + 1 : fails + (works - fails) / 2;
    DP_ASSIGN_OR_RETURN(Answer found, PlanInRoom(question, recomputed, rest,
                                                 budget_bytes, middle));
    if (recomputed.OnTop(rest, found.plan.planned) > middle) {
      fails = middle;
      continue;
    }
    works = middle;
    if (found.cost < best.cost) best = std::move(found);
  }
  return best;
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
  const auto most = static_cast<size_t>(
      std::max(0, std::min(question.most_layers,
                           static_cast<int>(question.layers.size()))));
  std::vector<Answer> answers;
  absl::Status error;
  const auto consider = [&](const Recomputed& recomputed) {
    absl::StatusOr<Answer> answer =
        PlanWith(question, recomputed, budget_bytes);
    if (answer.ok()) {
      answers.push_back(*std::move(answer));
    } else if (error.ok() || !absl::IsResourceExhausted(answer.status())) {
      error = answer.status();
    }
    return answer.ok();
  };
  const bool is_enough = consider(Recomputed(question));
  const std::vector<size_t> costliest = Costliest(
      question,
      is_enough ? std::make_optional(answers[0].plan.planned) : std::nullopt);
  const std::vector<size_t> roomiest = Roomiest(question);
  Recomputed by_room(question);
  Recomputed by_cost(question);
  for (size_t count = 1; count <= most; ++count) {
    by_room.Add(roomiest[count - 1]);
    by_cost.Add(costliest[count - 1]);
    consider(by_room);
    if (!(by_cost == by_room)) consider(by_cost);
  }
  if (!error.ok() && !absl::IsResourceExhausted(error)) return error;
  if (answers.empty()) return error;
  double least = std::numeric_limits<double>::infinity();
  for (const Answer& answer : answers) least = std::min(least, answer.cost);
  Answer* chosen = nullptr;
  for (Answer& answer : answers) {
    if (answer.cost > least * kWorthIt) continue;
    const bool is_better =
        chosen == nullptr ||
        (answer.plan.recomputed.size() == chosen->plan.recomputed.size() &&
         answer.cost < chosen->cost);
    if (is_better) chosen = &answer;
  }
  return std::move(chosen->plan);
}

int64_t LeastBudget(const RecomputeQuestion& question) {
  const std::vector<size_t> costliest = Costliest(question, std::nullopt);
  const std::vector<size_t> roomiest = Roomiest(question);
  Recomputed by_room(question);
  Recomputed by_cost(question);
  int64_t least = LeastDeviceBytes(question.tensors, question.host_bytes);
  const auto consider = [&](const Recomputed& recomputed) {
    const TensorBitsPart rest = recomputed.Rest();
    least = std::min(least,
                     LeastDeviceBytes(rest.question, question.host_bytes) +
                         recomputed.Bytes(MostOnTop(recomputed, rest.question,
                                                    question.host_bytes)));
  };
  const int most = std::min<int>(question.most_layers,
                                 static_cast<int>(question.layers.size()));
  for (int count = 1; count <= most; ++count) {
    by_room.Add(roomiest[static_cast<size_t>(count - 1)]);
    by_cost.Add(costliest[static_cast<size_t>(count - 1)]);
    consider(by_room);
    consider(by_cost);
  }
  return least;
}

}  // namespace deltapipe
