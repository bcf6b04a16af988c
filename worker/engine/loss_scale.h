// LossScale: what the loss is multiplied by where layers compute in fp16, whose
// smallest gradients would be zero (Micikevicius et al.: Mixed precision
// training, ICLR 2018, section 3.2).
//
//   input.gradient_scale = loss_scale.scale();
//   ... the step, and whether all gradients were finite, on all workers ...
//   if (loss_scale.Update(is_finite)) LOG_INFO << ...
//
// With "auto" the scale begins at 2^16, is halved by each step that is skipped,
// down to 1, and doubled after 2000 good ones in a row, up to 2^24. All workers
// pass the same verdicts, so all have the same scale. Not thread-safe.
#ifndef DELTAPIPE_WORKER_ENGINE_LOSS_SCALE_H_
#define DELTAPIPE_WORKER_ENGINE_LOSS_SCALE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deltapipe {

class LossScale {
 public:
  static constexpr double kFirst = 1 << 16;
  static constexpr double kLeast = 1;
  static constexpr double kMost = 1 << 24;
  static constexpr int64_t kGoodSteps = 2000;

  /// Of precisions that need none: always 1.
  LossScale() = default;

  /// `text` is "auto" or a number from kLeast to kMost (train.loss_scale);
  /// ignored unless `precision` is "fp16". INVALID_ARGUMENT.
  static absl::StatusOr<LossScale> Create(const std::string& precision,
                                          const std::string& text);

  double scale() const { return scale_; }
  bool is_used() const { return is_used_; }

  /// Takes in whether a step's gradients were finite; true if that changes the
  /// scale, from the next step on.
  bool Update(bool is_finite);

  /// For checkpoints; empty where the scale never changes.
  std::vector<double> ExportState() const;
  /// Nothing happens with an empty state, of a job without a changing scale, or
  /// if this one's does not change. INVALID_ARGUMENT for what cannot be one.
  absl::Status ImportState(const std::vector<double>& state);

 private:
  bool is_used_ = false;
  bool is_dynamic_ = false;
  double scale_ = 1;
  int64_t good_steps_ = 0;  // since it changed
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_LOSS_SCALE_H_
