// LearningRate: the rate of each step: a linear warm-up, then a decay.
//
//   rate = LearningRate({.rate = 8e-3, .warmup_steps = 50, .decay =
//                        LearningRateDecay::kCosine}, step, total_steps);
#ifndef DELTAPIPE_WORKER_OPTIM_LEARNING_RATE_H_
#define DELTAPIPE_WORKER_OPTIM_LEARNING_RATE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

enum class LearningRateDecay { kConstant, kLinear, kCosine };

/// From "constant", "linear" or "cosine"; INVALID_ARGUMENT for another word.
absl::StatusOr<LearningRateDecay> ParseLearningRateDecay(
    absl::string_view text);

struct LearningRateOptions {
  double rate = 1e-3;       // the peak, reached after the warm-up
  double final_rate = 0.0;  // of the last step; unused by kConstant
  int64_t warmup_steps = 0;
  LearningRateDecay decay = LearningRateDecay::kConstant;
};

/// The rate of `step`, counted from 0. In the warm-up it is
/// rate * (step + 1) / warmup_steps, so that no step has rate 0 and the last
/// one of the warm-up has the full rate. After it the rate falls from the full
/// rate at step warmup_steps to final_rate at step total_steps - 1, and stays
/// there.
double LearningRate(const LearningRateOptions& options, int64_t step,
                    int64_t total_steps);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_LEARNING_RATE_H_
