// CompressionStart<Real>: whether a step is compressed: by SetCompressing's
// last decision, or, before the first, by the options' compress_after_step.
#ifndef DELTAPIPE_WORKER_OPTIM_COMPRESSION_START_H_
#define DELTAPIPE_WORKER_OPTIM_COMPRESSION_START_H_

#include <cstdint>
#include <vector>

#include "worker/optim/optimizer.h"

namespace deltapipe {

template <typename Real>
class CompressionStart {
 public:
  explicit CompressionStart(const OptimizerOptions& options)
      : compress_after_step_(options.compress_after_step), decision_(1) {}

  void Decide(bool on) { decision_[0] = on ? kOn : kOff; }

  bool IsDue(int64_t step) const {
    if (decision_[0] != kNone) return decision_[0] == kOn;
    return compress_after_step_ != kCompressByDecision &&
           step >= compress_after_step_;
  }

  /// For checkpoints, one value.
  std::vector<Real>* decision() { return &decision_; }

 private:
  static constexpr Real kNone = 0;
  static constexpr Real kOff = 1;
  static constexpr Real kOn = 2;

  const int64_t compress_after_step_;
  std::vector<Real> decision_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_COMPRESSION_START_H_
