// actnn(bits=2): `bits` per value on average, more where they spare the
// gradient most variance.
//
// Bits over tensors: least variance (gradient_variance.h) within the average,
// from 2, 3, 4 and 8 bits, planned anew after each measurement. ActNN's
// formula is that of matrix products and convolutions; what tensors of other
// operators (GELU, norms, the attention) do to the gradients further up is
// measured operator by operator. Until the first one all tensors have `bits`.
// Bits over the samples of a tensor: by the `mixed` codec, where there are
// samples enough; a sample that has fewer values than a group shares its bits
// with its neighbours. Groups of 256, rounded stochastically, metadata in bf16
// rounded outward: unbiased.
//
// In the place of bits a level of the authors' program: L1 4 bits, what
// normalisations read as it is (known from the first measurement on); L2 4
// bits, not planned; L3 as bits=2. L4 and L5, which swap to the host, are
// offload(codec) here.
//
// Chen et al., ActNN, ICML 2021, arXiv 2104.14129.
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bits_policy.h"
#include "compression/bit_plan/gradient_variance.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

constexpr int kMeasureEverySteps = 100;
// One bit is no level: what reads queries and keys recomputes exponentials, of
// which the variance at 2 bits says nothing.
constexpr int kLevels[] = {2, 3, 4, 8};
// Fewer rows have too few bits to choose from.
constexpr int64_t kMinRows = 8;

enum class ActnnPlan { kBits, kNormsExact, kNone };

class ActnnPolicy final : public BitsPolicy {
 public:
  ActnnPolicy(std::string text, int bits, ActnnPlan plan)
      : BitsPolicy(
            std::move(text), bits,
            plan == ActnnPlan::kNone ? "for all" : "until the first plan"),
        bits_(bits),
        plan_(plan) {}

  SavedMeasures measures() const override {
    return {plan_ == ActnnPlan::kNone ? 0 : kMeasureEverySteps,
            plan_ == ActnnPlan::kBits
                ? SavedMeasures::Sensitivities::kByOperator
                : SavedMeasures::Sensitivities::kNone};
  }

  absl::Status Plan(int64_t /*step*/,
                    absl::Span<const SavedMeasurement> measurements) override {
    if (measurements.empty() || plan_ == ActnnPlan::kNone) {
      return absl::OkStatus();
    }
    if (plan_ == ActnnPlan::kNormsExact) {
      SetPlan(NormsExact(measurements));
      return absl::OkStatus();
    }
    TensorBitsQuestion question;
    question.measurements = measurements;
    for (const SavedMeasurement& measurement : measurements) {
      question.coefficients.push_back(MeasuredVariance(measurement));
    }
    // An average of 1 bit leaves nothing to choose.
    const int one_bit[] = {1};
    question.levels = bits_ < kLevels[0] ? absl::MakeConstSpan(one_bit)
                                         : absl::MakeConstSpan(kLevels);
    DP_ASSIGN_OR_RETURN(auto planned, PlanAverageBits(question, bits_));
    SetPlan(std::move(planned));
    return absl::OkStatus();
  }

 protected:
  std::string CodecFor(const SavedTensor& tensor, int bits) const override {
    const int64_t row = RowOf(tensor);
    const bool has_rows = row > 0 && tensor.num_elements / row >= kMinRows;
    // At the ends all rows have the same bits.
    if (!has_rows || bits == 1 || bits == 8) return GroupCodecText(bits);
    return absl::StrCat("mixed(bits=", bits, ",block=", kBitGroup, ",row=", row,
                        ")");
  }

 private:
  // Values of one sample, or of as many as fill a group; 0: there are none.
  static int64_t RowOf(const SavedTensor& tensor) {
    if (tensor.shape.size() < 2 || tensor.shape[0] <= 0) return 0;
    const int64_t sample = tensor.num_elements / tensor.shape[0];
    return sample <= 0 ? 0 : (kBitGroup + sample - 1) / sample * sample;
  }

  std::map<std::string, PlannedTensor> NormsExact(
      absl::Span<const SavedMeasurement> measurements) const {
    std::map<std::string, PlannedTensor> planned;
    for (const SavedMeasurement& measurement : measurements) {
      PlannedTensor& tensor = planned[measurement.tensor.name];
      tensor.op = measurement.tensor.op;
      const bool is_norm = absl::StrContains(measurement.reader, "norm");
      tensor.value = is_norm ? kExactBits : bits_;
    }
    return planned;
  }

  const int bits_;
  const ActnnPlan plan_;
};

constexpr CodecParameter BitsParameter() {
  CodecParameter parameter = IntegerParameter(
      "bits", "2", 1, 8, "bits per value on average, or a level of ActNN");
  parameter.choices = "L1|L2|L3|L4|L5";
  return parameter;
}

constexpr CodecParameter kParameters[] = {BitsParameter()};

}  // namespace

absl::Span<const CodecParameter> ActnnPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeActnnPolicy(
    const CodecArguments& arguments) {
  int bits = static_cast<int>(arguments.Integer("bits"));
  ActnnPlan plan = ActnnPlan::kBits;
  if (arguments.IsWord("bits")) {
    const std::string& level = arguments.Word("bits");
    if (level == "L4" || level == "L5") {
      return CodecSpecError(
          arguments.Codec("bits"),
          absl::StrCat("actnn: level ", level,
                       " swaps to the host: expected L1, L2, L3 or bits, or "
                       "the policy offload(codec) for that"));
    }
    bits = level == "L3" ? 2 : 4;
    plan = level == "L1"   ? ActnnPlan::kNormsExact
           : level == "L2" ? ActnnPlan::kNone
                           : ActnnPlan::kBits;
  }
  return std::unique_ptr<SavedPolicy>(
      new ActnnPolicy(arguments.CanonicalText(), bits, plan));
}

}  // namespace deltapipe
