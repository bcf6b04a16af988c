#include "worker/optim/compression_switch.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace deltapipe {
namespace {

constexpr int64_t kLargestWindow = 100;
constexpr int64_t kChecksPerWindow = 2;

int64_t WindowOf(double beta2) {
  // The margin keeps 1 / (1 - 0.99) = 100.00000000000009 from being 101.
  const double memory = std::ceil(1 / (1 - beta2) - 1e-6);
  return static_cast<int64_t>(
      std::min(memory, static_cast<double>(kLargestWindow)));
}

}  // namespace

absl::StatusOr<CompressionSwitch> CompressionSwitch::Create(
    const CompressionSwitchOptions& options) {
  const auto error = [](const char* name, const char* expected, double got) {
    return absl::InvalidArgumentError(absl::StrCat(
        "compression switch: ", name, ": expected ", expected, ", got ", got));
  };
  if (!(options.beta2 >= 0 && options.beta2 < 1)) {
    return error("beta2", "0 <= beta2 < 1", options.beta2);
  }
  if (!(options.variance_change > 0)) {
    return error("variance_change", "a number > 0", options.variance_change);
  }
  if (!(options.coefficient_spread > 0)) {
    return error("coefficient_spread", "a number > 0",
                 options.coefficient_spread);
  }
  if (!(options.max_share_at_limit >= 0 && options.max_share_at_limit <= 1)) {
    return error("max_share_at_limit", "0 to 1", options.max_share_at_limit);
  }
  if (options.num_checks < 1) {
    return error("num_checks", "at least 1", options.num_checks);
  }
  return CompressionSwitch(options);
}

CompressionSwitch::CompressionSwitch(const CompressionSwitchOptions& options)
    : options_(options),
      check_interval_(
          std::max<int64_t>(WindowOf(options.beta2) / kChecksPerWindow, 1)) {}

bool CompressionSwitch::WantsEvidence(int64_t step) const {
  if (options_.compress_after_step != kCompressByDecision) {
    return !is_on_ && step + 1 >= options_.compress_after_step;
  }
  return (step + 1) % check_interval_ == 0;
}

std::string CompressionSwitch::Update(int64_t step,
                                      const CompressionEvidence& evidence) {
  if (!WantsEvidence(step)) return "";
  if (options_.compress_after_step != kCompressByDecision) {
    return Turn(true, step, "as compress_after_step says");
  }
  return is_on_ ? CheckLimits(step, evidence) : CheckSettled(step, evidence);
}

std::string CompressionSwitch::Turn(bool on, int64_t step,
                                    const std::string& reason) {
  is_on_ = on;
  num_agreeing_checks_ = 0;
  variance_sums_.clear();
  return absl::StrCat("compression goes ", on ? "on" : "off", " after step ",
                      step + 1, ": ", reason);
}

std::string CompressionSwitch::CheckSettled(
    int64_t step, const CompressionEvidence& evidence) {
  variance_sums_.push_back(evidence.variance_sum);
  if (variance_sums_.size() <= kChecksPerWindow) return "";
  const double before = variance_sums_.front();
  variance_sums_.erase(variance_sums_.begin());
  const double change =
      std::abs(evidence.variance_sum - before) / evidence.variance_sum;
  const double spread =
      evidence.num_coefficients > 0
          ? evidence.coefficient_spread_sum / evidence.num_coefficients
          : 0;
  // A variance of zero has a change of NaN, which is not settled.
  const bool is_settled =
      change < options_.variance_change && spread < options_.coefficient_spread;
  num_agreeing_checks_ = is_settled ? num_agreeing_checks_ + 1 : 0;
  if (num_agreeing_checks_ < options_.num_checks) return "";
  std::string reason = absl::StrFormat(
      "the variance changed by %.2g%% in %d steps (limit %.2g%%)", 100 * change,
      check_interval_ * kChecksPerWindow, 100 * options_.variance_change);
  if (evidence.num_coefficients > 0) {
    absl::StrAppendFormat(
        &reason, ", the coefficients of %d tensors by %.2g%% (limit %.2g%%)",
        static_cast<int64_t>(evidence.num_coefficients), 100 * spread,
        100 * options_.coefficient_spread);
  }
  return Turn(true, step, reason);
}

std::string CompressionSwitch::CheckLimits(
    int64_t step, const CompressionEvidence& evidence) {
  const bool is_outdated = evidence.num_factors_at_limit >
                           options_.max_share_at_limit * evidence.num_factors;
  num_agreeing_checks_ = is_outdated ? num_agreeing_checks_ + 1 : 0;
  if (num_agreeing_checks_ < options_.num_checks) return "";
  return Turn(
      false, step,
      absl::StrFormat("the correction of the frozen variance is at its "
                      "limit in %d of %d tensors",
                      static_cast<int64_t>(evidence.num_factors_at_limit),
                      static_cast<int64_t>(evidence.num_factors)));
}

std::vector<double> CompressionSwitch::ExportState() const {
  std::vector<double> state = {is_on_ ? 1.0 : 0.0,
                               static_cast<double>(num_agreeing_checks_)};
  state.insert(state.end(), variance_sums_.begin(), variance_sums_.end());
  return state;
}

absl::Status CompressionSwitch::ImportState(absl::Span<const double> state) {
  if (state.size() < 2 || state.size() > 2 + kChecksPerWindow ||
      (state[0] != 0 && state[0] != 1) || !(state[1] >= 0) ||
      !(state[1] < options_.num_checks)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "compression switch: expected a state of 2 to ", 2 + kChecksPerWindow,
        " values with fewer than ", options_.num_checks,
        " agreeing checks, got ", state.size(), " values"));
  }
  is_on_ = state[0] == 1;
  num_agreeing_checks_ = static_cast<int>(state[1]);
  variance_sums_.assign(state.begin() + 2, state.end());
  return absl::OkStatus();
}

}  // namespace deltapipe
