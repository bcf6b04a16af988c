// auto(budget): the least gradient variance within a budget of memory.
//
// `budget` is what the tensors of one micro-batch in flight may take in one
// stage, in MiB, packed, metadata and masks of zeros included; tensors that are
// never compressed do not count. Bits over tensors are chosen from kLevels by
// sensitivities where they were measured, and else by gradient_variance.h.
// Until the first plan, tensors have 4 bits.
//
// A budget that does not suffice for the lowest levels is an error of Plan,
// which names the smallest one that does.
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "compression/bit_plan/bits_policy.h"
#include "compression/bit_plan/gradient_variance.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

constexpr int kMeasureEverySteps = 100;
constexpr int kBitsBeforePlan = 4;
// What is chosen from, ascending.
constexpr int kLevels[] = {2, 4, 8, kExactBits};
constexpr double kBytesPerMiB = 1 << 20;

class AutoPolicy final : public BitsPolicy {
 public:
  AutoPolicy(std::string text, int64_t budget_bytes)
      : BitsPolicy(std::move(text), kBitsBeforePlan, "until the first plan"),
        budget_bytes_(budget_bytes) {}

  SavedMeasures measures() const override {
    return {kMeasureEverySteps, SavedMeasures::Sensitivities::kByOperator};
  }

  absl::Status Plan(int64_t /*step*/,
                    absl::Span<const SavedMeasurement> measurements) override {
    if (measurements.empty()) return absl::OkStatus();
    TensorBitsQuestion question;
    question.measurements = measurements;
    for (const SavedMeasurement& measurement : measurements) {
      question.coefficients.push_back(MeasuredVariance(measurement));
    }
    question.levels = kLevels;
    question.raised = &state().raised;
    DP_ASSIGN_OR_RETURN(auto planned, PlanBudgetBits(question, budget_bytes_));
    SetPlan(std::move(planned));
    return absl::OkStatus();
  }

 private:
  const int64_t budget_bytes_;
};

constexpr CodecParameter kParameters[] = {
    NumberParameter("budget", "", 0, 1 << 24,
                    "MiB per stage and micro-batch in flight"),
};

}  // namespace

absl::Span<const CodecParameter> AutoPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeAutoPolicy(
    const CodecArguments& arguments) {
  const double bytes = std::floor(arguments.Number("budget") * kBytesPerMiB);
  return std::unique_ptr<SavedPolicy>(
      new AutoPolicy(arguments.CanonicalText(), static_cast<int64_t>(bytes)));
}

}  // namespace deltapipe
