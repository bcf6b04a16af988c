// gact(bits=4,every=1000): `bits` per value on average, over tensors by how far
// the gradient was seen to move with each of them at 1 bit.
//
// Every `every` steps the sensitivity C of each tensor is measured
// (SavedMeasurement::sensitivity) and the sum of C / (2^b - 1)^2 is made least
// from 1, 2, 4 and 8 bits and the tensor as it is, within the average. Until
// the first measurement all tensors have `bits`. Tensors go by their names and
// not by the count of calls, so that micro-batches in flight, evaluations and
// batches of another size disturb nothing.
//
// Liu et al., GACT, ICML 2022, arXiv 2206.11357, sections 4.2 and 4.3.
#include <memory>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "compression/bit_plan/bits_policy.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

constexpr int kLevels[] = {1, 2, 4, 8, kExactBits};

class GactPolicy final : public BitsPolicy {
 public:
  GactPolicy(std::string text, int bits, int every)
      : BitsPolicy(std::move(text), bits, "until the first plan"),
        bits_(bits),
        every_(every) {}

  SavedMeasures measures() const override {
    return {every_, SavedMeasures::Sensitivities::kByTensor};
  }

  absl::Status Plan(int64_t /*step*/,
                    absl::Span<const SavedMeasurement> measurements) override {
    if (measurements.empty()) return absl::OkStatus();
    TensorBitsQuestion question;
    question.measurements = measurements;
    for (const SavedMeasurement& measurement : measurements) {
      question.coefficients.push_back(measurement.sensitivity);
    }
    question.levels = kLevels;
    DP_ASSIGN_OR_RETURN(auto planned, PlanAverageBits(question, bits_));
    SetPlan(std::move(planned));
    return absl::OkStatus();
  }

 private:
  const int bits_;
  const int every_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("bits", "4", 1, 8, "bits per value on average"),
    IntegerParameter("every", "1000", 1, 1000000000,
                     "steps between two measurements"),
};

}  // namespace

absl::Span<const CodecParameter> GactPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeGactPolicy(
    const CodecArguments& arguments) {
  return std::unique_ptr<SavedPolicy>(new GactPolicy(
      arguments.CanonicalText(), static_cast<int>(arguments.Integer("bits")),
      static_cast<int>(arguments.Integer("every"))));
}

}  // namespace deltapipe
