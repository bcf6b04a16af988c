// auto(budget): the least gradient variance within a budget of memory.
//
// `budget` is what saved tensors may take in one worker, in MiB: of all
// micro-batches that are in flight at a time, those that are never compressed
// included. So the stages of a pipeline, the first of which holds the most
// micro-batches, come out level. Bits over tensors are chosen from kLevels by
// sensitivities where they were measured, and else by gradient_variance.h.
// Until the first plan, tensors have 4 bits.
//
// A budget that does not suffice for the lowest levels is an error of Plan,
// which names the smallest one that does.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
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
    const int64_t share = budget_bytes_ / room_.in_flight - room_.exempt_bytes;
    auto planned = PlanBudgetBits(question, std::max<int64_t>(share, 0));
    if (absl::IsResourceExhausted(planned.status())) {
      return TooSmall(LeastBudget(question));
    }
    DP_RETURN_IF_ERROR(planned.status());
    SetPlan(*std::move(planned));
    return absl::OkStatus();
  }

  void SetRoom(const SavedRoom& room) override { room_ = room; }

 private:
  /// `least` bytes a micro-batch would be enough for what is packed.
  absl::Status TooSmall(int64_t least) const {
    const auto in_mib = [](double bytes) { return bytes / kBytesPerMiB; };
    // Rounded up, so that it does work.
    const double works =
        std::ceil(in_mib(static_cast<double>((least + room_.exempt_bytes) *
                                             room_.in_flight)) *
                  100) /
        100;
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s is too small: each of %d micro-batches in flight keeps %.2f MiB as "
        "they are (loss head, statistics) and %.2f MiB in the fewest bits; "
        "auto(%g) is the smallest budget that works",
        text(), room_.in_flight,
        in_mib(static_cast<double>(room_.exempt_bytes)),
        in_mib(static_cast<double>(least)), works));
  }

  const int64_t budget_bytes_;
  SavedRoom room_;
};

constexpr CodecParameter kParameters[] = {
    NumberParameter("budget", "", 0, 1 << 24,
                    "MiB per worker, for all its micro-batches in flight"),
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
