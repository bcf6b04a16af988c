#include "worker/optim/learning_rate.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace deltapipe {

absl::StatusOr<LearningRateDecay> ParseLearningRateDecay(
    absl::string_view text) {
  if (text == "constant") return LearningRateDecay::kConstant;
  if (text == "linear") return LearningRateDecay::kLinear;
  if (text == "cosine") return LearningRateDecay::kCosine;
  return absl::InvalidArgumentError(absl::StrCat(
      "learning rate schedule: expected constant, linear or cosine, got \"",
      text, "\""));
}

double LearningRate(const LearningRateOptions& options, int64_t step,
                    int64_t total_steps) {
  if (step < options.warmup_steps) {
    return options.rate * static_cast<double>(step + 1) /
           static_cast<double>(options.warmup_steps);
  }
  if (options.decay == LearningRateDecay::kConstant) return options.rate;
  const int64_t last = total_steps - 1;
  if (step >= last) {
    // Without room for a decay the peak is also the last step.
    return last <= options.warmup_steps && step <= options.warmup_steps
               ? options.rate
               : options.final_rate;
  }
  const double progress = static_cast<double>(step - options.warmup_steps) /
                          static_cast<double>(last - options.warmup_steps);
  const double left = options.decay == LearningRateDecay::kLinear
                          ? 1.0 - progress
                          : 0.5 * (1.0 + std::cos(std::acos(-1.0) * progress));
  return options.final_rate + (options.rate - options.final_rate) * left;
}

}  // namespace deltapipe
