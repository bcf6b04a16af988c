// The bits of all tensors of a stage, from what each adds to the gradient's
// variance: PlanBits (bit_plan.h) for measurements.
//
// Policies call it between steps. Pure functions.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_TENSOR_BITS_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_TENSOR_BITS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/bit_plan/policy_state.h"
#include "compression/bit_plan/saved_policy.h"

namespace deltapipe {

/// Bits of tensors of which nothing finite was measured.
inline constexpr int kUnmeasuredBits = 8;

struct TensorBitsQuestion {
  absl::Span<const SavedMeasurement> measurements;
  /// One per measurement: at b bits it costs coefficient / (2^b - 1)^2. What is
  /// negative or no finite number gives kUnmeasuredBits.
  std::vector<double> coefficients;
  /// The same for the derivative in the tensor's place, by PlanBudgetBits; what
  /// is negative or no finite number says that there is no such choice. Empty:
  /// for none.
  std::vector<double> derivative_coefficients;
  /// Bits to choose from, ascending; kExactBits: as it is.
  absl::Span<const int> levels;
  /// How often the tensors of an operator were raised, by operator.
  const std::map<std::string, int>* raised = nullptr;
  /// PolicyState::least_bits.
  const std::map<std::string, int>* least_bits = nullptr;

  // Of one of the measurements.
  bool IsMeasured(size_t measurement) const;
  /// What becomes of a level, in PlannedTensor's terms, by what was raised.
  int BitsAt(size_t measurement, double level) const;
};

/// A question about some of the measurements of another one.
class TensorBitsPart {
 public:
  /// Of those whose index `is_part` holds for.
  TensorBitsPart(const TensorBitsQuestion& all,
                 const std::function<bool(size_t)>& is_part);
  TensorBitsPart(const TensorBitsPart&) = delete;
  TensorBitsPart& operator=(const TensorBitsPart&) = delete;

  TensorBitsQuestion question;

 private:
  std::vector<SavedMeasurement> measurements_;
};

/// By tensor. On average over elements at most `bits`, metadata aside; raises
/// and tensors that were not measured come on top. `levels` begin at `bits` or
/// below.
absl::StatusOr<std::map<std::string, PlannedTensor>> PlanAverageBits(
    const TensorBitsQuestion& question, double bits);

/// What a level, in PlannedTensor's terms, costs with what was raised.
double LevelCost(const TensorBitsQuestion& question, size_t measurement,
                 double level);

/// What it takes by PlanBudgetBits.
int64_t LevelBytes(const TensorBitsQuestion& question, size_t measurement,
                   double level);

/// By tensor, the bits before they are raised. All tensors together take at
/// most `budget_bytes`, metadata, raises and masks of zeros included.
/// RESOURCE_EXHAUSTED as PlanBits.
absl::StatusOr<std::map<std::string, PlannedTensor>> PlanBudgetBits(
    const TensorBitsQuestion& question, int64_t budget_bytes);

/// The smallest budget that PlanBudgetBits has an answer for.
int64_t LeastBudget(const TensorBitsQuestion& question);

/// What PlanBudgetBits takes a tensor for at `bits`.
int64_t PackedBytes(const SavedMeasurement& measurement, int bits);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_TENSOR_BITS_H_
