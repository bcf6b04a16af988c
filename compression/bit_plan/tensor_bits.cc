#include "compression/bit_plan/tensor_bits.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/bit_plan.h"

namespace deltapipe {
namespace {

using Plan = std::map<std::string, PlannedTensor>;

bool IsCost(double coefficient) {
  return coefficient >= 0 && std::isfinite(coefficient);
}

int64_t BytesOfBits(const SavedTensor& tensor, int bits) {
  const int most = 8 * tensor.element_bytes;
  return (tensor.num_elements * std::min(bits, most) + 7) / 8;
}

// Those that the tensor may have: at least one.
std::vector<int> LevelsOf(const SavedTensor& tensor,
                          absl::Span<const int> levels) {
  std::vector<int> allowed;
  for (const int level : levels) {
    if (level >= tensor.least_bits) allowed.push_back(level);
  }
  if (allowed.empty()) allowed.push_back(tensor.least_bits);
  return allowed;
}

// A choice: bits in PlannedTensor's terms.
struct Level {
  BitLevel level;
  int bits;
};

double DerivativeCoefficient(const TensorBitsQuestion& question, size_t i) {
  return i < question.derivative_coefficients.size()
             ? question.derivative_coefficients[i]
             : -1;
}

// Tensors to choose for, and what is known of the others.
struct Items {
  std::vector<BitPlanItem> items;
  // By item.
  std::vector<std::vector<int>> bits;
  std::vector<PlannedTensor*> planned;
  Plan plan;

  // The first of two tensors of one name counts.
  PlannedTensor* Add(const SavedTensor& tensor) {
    const auto [at, is_new] = plan.emplace(tensor.name, PlannedTensor());
    if (!is_new) return nullptr;
    at->second.op = tensor.op;
    return &at->second;
  }

  // Of `levels`, those that are worth their bytes.
  void Choose(const std::string& name, std::vector<Level> levels,
              PlannedTensor* chosen) {
    std::stable_sort(levels.begin(), levels.end(),
                     [](const Level& a, const Level& b) {
                       return std::tie(a.level.bytes, a.level.cost) <
                              std::tie(b.level.bytes, b.level.cost);
                     });
    BitPlanItem item;
    item.name = name;
    std::vector<int> item_bits;
    for (const Level& level : levels) {
      const bool is_worth_it =
          item.levels.empty() || level.level.cost <= item.levels.back().cost;
      const bool takes_more =
          item.levels.empty() || level.level.bytes > item.levels.back().bytes;
      if (!is_worth_it || !takes_more) continue;
      item.levels.push_back(level.level);
      item_bits.push_back(level.bits);
    }
    items.push_back(std::move(item));
    bits.push_back(std::move(item_bits));
    planned.push_back(chosen);
  }
};

absl::StatusOr<Plan> Solve(Items items, int64_t budget_bytes) {
  DP_ASSIGN_OR_RETURN(const BitPlan plan, PlanBits(items.items, budget_bytes));
  for (size_t i = 0; i < items.planned.size(); ++i) {
    items.planned[i]->value = items.bits[i][plan.levels[i]];
  }
  return std::move(items.plan);
}

}  // namespace

bool TensorBitsQuestion::IsMeasured(size_t measurement) const {
  return IsCost(coefficients[measurement]);
}

int TensorBitsQuestion::BitsAt(size_t measurement, double level) const {
  const auto of_op = [&](const std::map<std::string, int>* map) {
    if (map == nullptr) return 0;
    const auto found = map->find(measurements[measurement].tensor.op);
    return found == map->end() ? 0 : found->second;
  };
  return std::max(RaisedBits(static_cast<int>(std::fabs(level)), of_op(raised)),
                  of_op(least_bits));
}

TensorBitsPart::TensorBitsPart(const TensorBitsQuestion& all,
                               const std::function<bool(size_t)>& is_part) {
  question.levels = all.levels;
  question.raised = all.raised;
  question.least_bits = all.least_bits;
  for (size_t i = 0; i < all.measurements.size(); ++i) {
    if (!is_part(i)) continue;
    measurements_.push_back(all.measurements[i]);
    question.coefficients.push_back(all.coefficients[i]);
    if (i < all.derivative_coefficients.size()) {
      question.derivative_coefficients.push_back(
          all.derivative_coefficients[i]);
    }
  }
  question.measurements = measurements_;
}

absl::StatusOr<Plan> PlanAverageBits(const TensorBitsQuestion& question,
                                     double bits) {
  Items items;
  double budget = 0;
  for (size_t i = 0; i < question.measurements.size(); ++i) {
    const SavedTensor& tensor = question.measurements[i].tensor;
    PlannedTensor* const planned = items.Add(tensor);
    if (planned == nullptr) continue;
    if (!question.IsMeasured(i)) {
      planned->value = kUnmeasuredBits;
      planned->is_measured = false;
      continue;
    }
    BitPlanItem item;
    item.name = tensor.name;
    const std::vector<int> levels = LevelsOf(tensor, question.levels);
    for (const int level : levels) {
      item.levels.push_back(
          {BytesOfBits(tensor, level),
           QuantisationCost(question.coefficients[i], level)});
    }
    // Bytes of levels are rounded up, too.
    budget += std::ceil(static_cast<double>(tensor.num_elements) *
                        std::max<double>(bits, levels[0]) / 8);
    items.items.push_back(std::move(item));
    items.bits.push_back(levels);
    items.planned.push_back(planned);
  }
  return Solve(std::move(items), static_cast<int64_t>(budget));
}

namespace {

Items ItemsOfBudget(const TensorBitsQuestion& question) {
  Items items;
  for (size_t i = 0; i < question.measurements.size(); ++i) {
    const SavedMeasurement& measurement = question.measurements[i];
    PlannedTensor* const planned = items.Add(measurement.tensor);
    if (planned == nullptr) continue;
    planned->is_measured = question.IsMeasured(i);
    std::vector<Level> levels;
    if (planned->is_measured) {
      for (const int bits : LevelsOf(measurement.tensor, question.levels)) {
        levels.push_back(
            {{LevelBytes(question, i, bits), LevelCost(question, i, bits)},
             bits});
      }
      if (IsCost(DerivativeCoefficient(question, i))) {
        for (const int bits : question.levels) {
          if (question.BitsAt(i, -bits) >= kExactBits) continue;
          levels.push_back(
              {{LevelBytes(question, i, -bits), LevelCost(question, i, -bits)},
               -bits});
        }
      }
    } else {
      levels.push_back(
          {{LevelBytes(question, i, kUnmeasuredBits), 0}, kUnmeasuredBits});
    }
    items.Choose(measurement.tensor.name, std::move(levels), planned);
  }
  return items;
}

}  // namespace

double LevelCost(const TensorBitsQuestion& question, size_t measurement,
                 double level) {
  // A derivative that is raised above all bits is the tensor as it is.
  return QuantisationCost(level < 0
                              ? DerivativeCoefficient(question, measurement)
                              : question.coefficients[measurement],
                          question.BitsAt(measurement, level));
}

int64_t LevelBytes(const TensorBitsQuestion& question, size_t measurement,
                   double level) {
  const SavedMeasurement& measured = question.measurements[measurement];
  const int bits = question.BitsAt(measurement, level);
  // A derivative that is raised above all bits is the tensor as it is.
  return level < 0 && bits < kExactBits
             ? GroupCodecBytes(measured.tensor.num_elements, bits)
             : PackedBytes(measured, bits);
}

absl::StatusOr<Plan> PlanBudgetBits(const TensorBitsQuestion& question,
                                    int64_t budget_bytes) {
  return Solve(ItemsOfBudget(question), budget_bytes);
}

int64_t LeastBudget(const TensorBitsQuestion& question) {
  int64_t bytes = 0;
  for (const BitPlanItem& item : ItemsOfBudget(question).items) {
    bytes += item.levels[0].bytes;
  }
  return bytes;
}

int64_t PackedBytes(const SavedMeasurement& measurement, int bits) {
  const SavedTensor& tensor = measurement.tensor;
  const int64_t raw = tensor.num_elements * tensor.element_bytes;
  if (bits >= kExactBits) return raw;
  if (!tensor.keeps_zeros) {
    return std::min(raw, GroupCodecBytes(tensor.num_elements, bits));
  }
  // Written so that a NaN counts as 1.
  const double share = measurement.nonzero_share < 1
                           ? std::max(measurement.nonzero_share, 0.0)
                           : 1.0;
  const auto kept = static_cast<int64_t>(
      std::ceil(share * static_cast<double>(tensor.num_elements)));
  return std::min(
      raw, 1 + (tensor.num_elements + 7) / 8 + GroupCodecBytes(kept, bits));
}

}  // namespace deltapipe
