// The global norm of the mean gradient, for clipping and reports.
//
// Known while gradients are synchronised in full precision. While they are
// compressed, the mean gradient can only be reconstructed from the synchronised
// momentum, and the error feedback's corrections of several steps are in it:
// its norm grows to several times the gradient's, and clipping by it throttles
// training. What is exact then are the replicas' own gradients. Their norm
// (root mean square over the replicas) exceeds the mean's by sampling noise, by
// a ratio that changes slowly: it is measured in full precision and kept, so
// that nothing jumps at the switch. See docs/decisions/0008.
#ifndef DELTAPIPE_WORKER_ENGINE_GRADIENT_NORM_H_
#define DELTAPIPE_WORKER_ENGINE_GRADIENT_NORM_H_

#include <cmath>

namespace deltapipe {

class GradientNorm {
 public:
  /// The norm at this step; `is_exact`: gradients were synchronised in full
  /// precision. All workers must pass the same values: sums over
  /// the stages of the mean gradient's squared norm, and of the mean over the
  /// replicas of their own gradients' squared norms, or of what is no less and
  /// in a steady ratio to it. Not finite if either is not.
  double Update(bool is_exact, double mean_squared, double own_squared) {
    if (!std::isfinite(mean_squared) || !std::isfinite(own_squared)) {
      return mean_squared + own_squared;
    }
    if (!is_exact) return std::sqrt(ratio_ * own_squared);
    if (own_squared > 0) {
      const double ratio = mean_squared / own_squared;
      ratio_ = is_known_ ? kMemory * ratio_ + (1 - kMemory) * ratio : ratio;
      is_known_ = true;
    }
    return std::sqrt(mean_squared);
  }

  /// What a checkpoint keeps, and gives back.
  double ratio() const { return ratio_; }
  bool is_ratio_known() const { return is_known_; }
  void Restore(double ratio, bool is_known) {
    ratio_ = ratio;
    is_known_ = is_known;
  }

 private:
  static constexpr double kMemory = 0.9;

  double ratio_ = 1;  // an upper bound until it was measured
  bool is_known_ = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_GRADIENT_NORM_H_
