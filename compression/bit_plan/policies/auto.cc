// auto(budget,slowdown=off,offload=0): the least gradient variance within a
// budget of memory.
//
// `budget` is what saved tensors may take in one worker, in MiB: of all
// micro-batches that are in flight at a time, those that are never compressed
// included. So the stages of a pipeline, the first of which holds the most
// micro-batches, come out level. Bits over tensors are chosen from kLevels by
// sensitivities where they were measured, and else by gradient_variance.h.
// Until the first plan, tensors have 4 bits.
//
// Operators of ours keep what they can do with (docs/decisions/0029): layer
// norm its result, GELU its derivative where that spares more variance than its
// input in as many bytes.
//
// Where `slowdown` allows it, layers are computed again in the backward pass in
// place of keeping their tensors in few bits: as many as that share of a step's
// time pays for, those first whose tensors cost most, and only while that
// spares variance. Such a layer's input is kept as it is, and the budget has
// room for the largest of them while it is computed again.
//
// `offload`, in MiB and shared out as the budget is, is what packed tensors may
// take in pinned host memory, as further room (offload_plan.h).
//
// What was raised stays above where it was raised to, as far as the budget
// goes. A budget that does not suffice for the lowest levels is an error of
// Plan, which names the smallest one that does.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "compression/bit_plan/bits_policy.h"
#include "compression/bit_plan/gradient_variance.h"
#include "compression/bit_plan/recompute_plan.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

constexpr int kMeasureEverySteps = 100;
constexpr int kBitsBeforePlan = 4;
constexpr int kBitsOfReplaced = 8;
// What is chosen from, ascending.
constexpr int kLevels[] = {2, 4, 8, kExactBits};
constexpr double kBytesPerMiB = 1 << 20;
// In a plan, the operator of a layer that is computed again; no tensor has a
// layer's name.
constexpr char kRecomputed[] = "(computed again)";

int64_t InBytes(double mib) {
  return static_cast<int64_t>(std::floor(mib * kBytesPerMiB));
}

class AutoPolicy final : public BitsPolicy {
 public:
  AutoPolicy(std::string text, int64_t budget_bytes, double slowdown,
             double offload)
      : BitsPolicy(std::move(text), kBitsBeforePlan, "until the first plan"),
        budget_bytes_(budget_bytes),
        slowdown_(slowdown),
        offload_(offload),
        host_bytes_(InBytes(offload)) {}

  SavedMeasures measures() const override {
    return {kMeasureEverySteps, SavedMeasures::Sensitivities::kByOperator,
            /*derivatives=*/true};
  }

  absl::Status Plan(int64_t /*step*/,
                    absl::Span<const SavedMeasurement> measurements) override {
    if (measurements.empty()) return absl::OkStatus();
    std::vector<SavedMeasurement> saved;
    std::vector<SavedTensor> replaced;
    RecomputeQuestion question;
    for (const SavedMeasurement& measurement : measurements) {
      if (measurement.tensor.substitute == SavedSubstitute::kOutput) {
        replaced.push_back(measurement.tensor);
        continue;
      }
      saved.push_back(measurement);
      question.tensors.coefficients.push_back(MeasuredVariance(measurement));
      question.tensors.derivative_coefficients.push_back(
          measurement.derivative_sensitivity / 2);
    }
    question.tensors.measurements = saved;
    question.tensors.levels = kLevels;
    question.tensors.raised = &state().raised;
    question.tensors.least_bits = &state().least_bits;
    question.layers = room_.layers;
    question.most_layers =
        LayersForSlowdown(static_cast<int>(room_.layers.size()), slowdown_);
    question.in_flight = room_.in_flight;
    question.head_bytes = room_.head_bytes;
    question.host_bytes = host_bytes_ / room_.in_flight;
    const int64_t budget = budget_bytes_ / room_.in_flight - room_.exempt_bytes;
    auto plan = PlanWithRecompute(question, budget);
    if (absl::IsResourceExhausted(plan.status()) &&
        !state().least_bits.empty()) {
      // Memory that is not there cannot be had by what was raised, either.
      ForgetLeastBits();
      plan = PlanWithRecompute(question, budget);
    }
    if (absl::IsResourceExhausted(plan.status())) {
      return TooSmall(LeastBudget(question));
    }
    DP_RETURN_IF_ERROR(plan.status());
    // Where an operator cannot do with its result after all.
    for (const SavedTensor& tensor : replaced) {
      plan->planned[tensor.name] = {tensor.op, kBitsOfReplaced, true};
    }
    for (const std::string& layer : plan->recomputed) {
      plan->planned[layer] = {kRecomputed, kExactBits, true};
      // As the stash calls what a recomputed layer keeps.
      plan->planned[layer + "/input/0"] = {"input", kExactBits, true};
    }
    SetPlan(std::move(plan->planned));
    return absl::OkStatus();
  }

  std::vector<std::string> RecomputedLayers() const override {
    std::vector<std::string> layers;
    for (const auto& [name, planned] : state().planned) {
      if (planned.op == kRecomputed) layers.push_back(name);
    }
    return layers;
  }

  bool MovesToHost() const override { return host_bytes_ > 0; }

  void SetRoom(const SavedRoom& room) override { room_ = room; }

 protected:
  bool TakesSubstitutes() const override { return true; }

 private:
  /// `least` bytes a micro-batch would be enough for what is packed.
  absl::Status TooSmall(int64_t least) const {
    const auto in_mib = [](double bytes) { return bytes / kBytesPerMiB; };
    // Rounded up, so that it does work.
    const int64_t bytes = (least + room_.exempt_bytes) * room_.in_flight;
    const double works =
        std::max(std::ceil(in_mib(static_cast<double>(bytes)) * 100), 1.0) /
        100;
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s is too small: each of %d micro-batches in flight keeps %.2f MiB as "
        "they are (loss head, statistics) and %.2f MiB in the fewest bits%s%s; "
        "auto(%.10g%s%s) is the smallest budget that works",
        text(), room_.in_flight,
        in_mib(static_cast<double>(room_.exempt_bytes)),
        in_mib(static_cast<double>(least)),
        slowdown_ > 0 ? " or for layers that are computed again" : "",
        host_bytes_ > 0 ? ", beside what waits in host memory" : "", works,
        slowdown_ > 0 ? absl::StrFormat(",slowdown=%g", slowdown_) : "",
        host_bytes_ > 0 ? absl::StrFormat(",offload=%.10g", offload_) : ""));
  }

  const int64_t budget_bytes_;
  const double slowdown_;
  const double offload_;  // MiB
  const int64_t host_bytes_;
  SavedRoom room_;
};

constexpr CodecParameter SlowdownParameter() {
  CodecParameter parameter =
      NumberParameter("slowdown", "off", 0, 0.34,
                      "share of a step's time to compute layers again in");
  parameter.choices = "off";
  return parameter;
}

constexpr CodecParameter OffloadParameter() {
  CodecParameter parameter = NumberParameter(
      "offload", "0", 0, 1 << 24,
      "MiB per worker of host memory for packed tensors, GPUs only");
  parameter.choices = "0";
  return parameter;
}

constexpr CodecParameter kParameters[] = {
    NumberParameter("budget", "", 0, 1 << 24,
                    "MiB per worker, for all its micro-batches in flight"),
    SlowdownParameter(),
    OffloadParameter(),
};

}  // namespace

absl::Span<const CodecParameter> AutoPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeAutoPolicy(
    const CodecArguments& arguments) {
  const double slowdown =
      arguments.IsWord("slowdown") ? 0 : arguments.Number("slowdown");
  const double offload =
      arguments.IsWord("offload") ? 0 : arguments.Number("offload");
  return std::unique_ptr<SavedPolicy>(
      new AutoPolicy(arguments.CanonicalText(),
                     InBytes(arguments.Number("budget")), slowdown, offload));
}

}  // namespace deltapipe
