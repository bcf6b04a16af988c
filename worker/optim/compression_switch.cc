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
  if (!(options.min_variance_ratio >= 0 && options.min_variance_ratio < 1)) {
    return error("min_variance_ratio", "0 <= min_variance_ratio < 1",
                 options.min_variance_ratio);
  }
  if (!(options.max_variance_ratio > 1)) {
    return error("max_variance_ratio", "a number > 1",
                 options.max_variance_ratio);
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

void CompressionSwitch::Observe(double squared_norm) {
  if (!fresh_variance_sum_.has_value()) return;
  *fresh_variance_sum_ = options_.beta2 * *fresh_variance_sum_ +
                         (1 - options_.beta2) * squared_norm;
}

std::string CompressionSwitch::Update(int64_t step,
                                      const CompressionEvidence& evidence) {
  if (!WantsEvidence(step)) return "";
  if (options_.compress_after_step != kCompressByDecision) {
    return Turn(true, step, "as compress_after_step says");
  }
  return is_on_ ? CheckOutdated(step, evidence) : CheckSettled(step, evidence);
}

std::string CompressionSwitch::Turn(bool on, int64_t step,
                                    const std::string& reason) {
  is_on_ = on;
  num_agreeing_checks_ = 0;
  variance_sums_.clear();
  fresh_variance_sum_.reset();
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
  const std::string sentence = Turn(true, step, reason);
  fresh_variance_sum_ = evidence.variance_sum;
  return sentence;
}

std::string CompressionSwitch::CheckOutdated(
    int64_t step, const CompressionEvidence& evidence) {
  if (!fresh_variance_sum_.has_value()) {
    fresh_variance_sum_ = evidence.variance_sum;
  }
  const bool has_factors = evidence.num_factors > 0;
  const double ratio = *fresh_variance_sum_ / evidence.variance_sum;
  const bool is_outdated =
      has_factors ? evidence.num_factors_at_limit >
                        options_.max_share_at_limit * evidence.num_factors
                  : ratio > options_.max_variance_ratio ||
                        ratio < options_.min_variance_ratio;
  num_agreeing_checks_ = is_outdated ? num_agreeing_checks_ + 1 : 0;
  if (num_agreeing_checks_ < options_.num_checks) return "";
  return Turn(
      false, step,
      has_factors
          ? absl::StrFormat("the correction of the frozen variance is at its "
                            "limit in %d of %d tensors",
                            static_cast<int64_t>(evidence.num_factors_at_limit),
                            static_cast<int64_t>(evidence.num_factors))
          : absl::StrFormat("the variance would be %.3g times the frozen one "
                            "(limits %.3g and %.3g)",
                            ratio, options_.min_variance_ratio,
                            options_.max_variance_ratio));
}

std::vector<double> CompressionSwitch::ExportState() const {
  std::vector<double> state = {is_on_ ? 1.0 : 0.0,
                               static_cast<double>(num_agreeing_checks_)};
  if (fresh_variance_sum_.has_value()) state.push_back(*fresh_variance_sum_);
  state.insert(state.end(), variance_sums_.begin(), variance_sums_.end());
  return state;
}

absl::Status CompressionSwitch::ImportState(absl::Span<const double> state) {
  const bool is_on = state.size() >= 2 && state[0] == 1;
  const size_t most = is_on ? 3 : 2 + static_cast<size_t>(kChecksPerWindow);
  if (state.size() < 2 || state.size() > most ||
      (state[0] != 0 && state[0] != 1) || !(state[1] >= 0) ||
      !(state[1] < options_.num_checks) ||
      (is_on && state.size() == most && !(state[2] >= 0))) {
    return absl::InvalidArgumentError(
        absl::StrCat("compression switch: expected a state of 2 to ", most,
                     " values with fewer than ", options_.num_checks,
                     " agreeing checks, got ", state.size(), " values"));
  }
  is_on_ = is_on;
  num_agreeing_checks_ = static_cast<int>(state[1]);
  variance_sums_.clear();
  fresh_variance_sum_.reset();
  if (!is_on) {
    variance_sums_.assign(state.begin() + 2, state.end());
  } else if (state.size() == most) {
    fresh_variance_sum_ = state[2];
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
