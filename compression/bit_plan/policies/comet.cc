// comet(target=0.01): no element is off by more than a bound, which follows the
// error that the gradient bears.
//
// Errors within +-eb, taken for uniform, add an error to each element of a
// weight's gradient that is nearly normal, of standard deviation
//   sigma = a * L * sqrt(N * R) * eb,   a = 0.32
// with L the mean magnitude of the gradient that x is multiplied with, N the
// positions that are summed over and R the share of x that is not zero. Asked
// for is sigma = target * (mean magnitude of the parameters' gradients), so
//   eb = target * M / (a * L * sqrt(N * R))
// anew after each measurement. N is the positions of x (NumPositions), which a
// strided convolution has more of than its output: the bound errs on the safe
// side. It is at most a quarter of the mean range of groups of 256 values,
// where errors cease to be uniform, and is rounded down to three digits.
//
// Values of magnitude <= eb become zero, so zeros stay zeros. Until the first
// measurement, and where nothing finite was measured: 8 bits. A raise divides
// the bound by 4, then by 4 more, then by 16 more; then tensors stay as they
// are.
//
// Jin et al., COMET, VLDB 2022, arXiv 2111.09562, sections 3.2 and 3.3.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "compression/bit_plan/gradient_variance.h"
#include "compression/bit_plan/planned_policy.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

// The paper's interval; about 1 / sqrt(3) of the bound, times what correlated
// terms take away.
constexpr double kErrorFactor = 0.32;
constexpr int kMeasureEverySteps = 1000;
constexpr double kLargestShareOfRange = 0.25;
constexpr double kDivisors[] = {1, 4, 16, 256};
constexpr int kNumDivisors = 4;
// What fp32 still tells apart from zero.
constexpr double kSmallestBound = 1e-36;

double RoundedDown(double bound) {
  const double unit = std::pow(10.0, std::floor(std::log10(bound)) - 2);
  return std::floor(bound / unit) * unit;
}

// 0 if what it takes was not measured.
double BoundOf(const SavedMeasurement& measurement, double target) {
  const SavedTensor& tensor = measurement.tensor;
  // Not measured counts as no zeros.
  const double share = measurement.nonzero_share < 1
                           ? std::max(measurement.nonzero_share, 1e-6)
                           : 1.0;
  const double terms = static_cast<double>(NumPositions(tensor)) * share;
  const double bound =
      target * measurement.parameter_gradient_mean_abs /
      (kErrorFactor * measurement.gradient_mean_abs * std::sqrt(terms));
  const auto num_groups =
      static_cast<double>((tensor.num_elements + kBitGroup - 1) / kBitGroup);
  const double range = std::sqrt(measurement.range_squares / num_groups);
  const double rounded =
      RoundedDown(std::min(bound, kLargestShareOfRange * range));
  const bool is_measured = std::isfinite(bound) && bound > 0 &&
                           std::isfinite(rounded) &&
                           rounded >= kSmallestBound && rounded < 3e38;
  return is_measured ? rounded : 0;
}

class CometPolicy final : public PlannedPolicy {
 public:
  CometPolicy(std::string text, double target)
      : PlannedPolicy(std::move(text)), target_(target) {}

  SavedMeasures measures() const override {
    return {kMeasureEverySteps, SavedMeasures::Sensitivities::kNone};
  }

  absl::Status Plan(int64_t /*step*/,
                    absl::Span<const SavedMeasurement> measurements) override {
    if (measurements.empty()) return absl::OkStatus();
    std::map<std::string, PlannedTensor> planned;
    for (const SavedMeasurement& measurement : measurements) {
      PlannedTensor& tensor = planned[measurement.tensor.name];
      tensor.op = measurement.tensor.op;
      tensor.value = BoundOf(measurement, target_);
      tensor.is_measured = tensor.value > 0;
    }
    SetPlan(std::move(planned));
    return absl::OkStatus();
  }

 protected:
  Choice Choose(const SavedTensor& /*tensor*/, const PlannedTensor* planned,
                int times_raised) const override {
    const std::string level = Level(planned, times_raised);
    if (HasBound(planned)) {
      return {BoundedCodec(*planned, times_raised),
              absl::StrCat(level, ", as planned")};
    }
    return {GroupCodecText(RaisedBits(kUnmeasuredBits, times_raised)),
            absl::StrCat(level, planned == nullptr
                                    ? ", until the first plan"
                                    : ", since nothing finite was measured")};
  }

  std::string Level(const PlannedTensor* planned,
                    int times_raised) const override {
    if (!HasBound(planned)) {
      return BitsText(RaisedBits(kUnmeasuredBits, times_raised));
    }
    if (times_raised >= kNumDivisors) return BitsText(kExactBits);
    return absl::StrCat("within ", BoundText(*planned, times_raised));
  }

 private:
  static bool HasBound(const PlannedTensor* planned) {
    return planned != nullptr && planned->is_measured && planned->value > 0;
  }

  static std::string BoundText(const PlannedTensor& planned, int times_raised) {
    return absl::StrFormat("%.6g", planned.value / kDivisors[times_raised]);
  }

  static std::string BoundedCodec(const PlannedTensor& planned,
                                  int times_raised) {
    if (times_raised >= kNumDivisors) return "";
    return absl::StrCat("error_bound(abs=", BoundText(planned, times_raised),
                        ")");
  }

  const double target_;
};

constexpr CodecParameter kParameters[] = {
    NumberParameter("target", "0.01", 0, 1,
                    "gradient error as a share of the gradient"),
};

}  // namespace

absl::Span<const CodecParameter> CometPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeCometPolicy(
    const CodecArguments& arguments) {
  return std::unique_ptr<SavedPolicy>(
      new CometPolicy(arguments.CanonicalText(), arguments.Number("target")));
}

}  // namespace deltapipe
