// ToyProblem: parameters in a few tensors of odd sizes, and noisy gradients of
// a quadratic loss, different on every rank: enough to drive an optimizer for
// hundreds of steps without a model.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_TOY_PROBLEM_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_TOY_PROBLEM_H_

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// Tensors "t0", "t1", ... of the given sizes, in that order. Those of fewer
/// than 10 elements have no weight decay, as biases.
inline ParameterLayout LayoutOf(const std::vector<int64_t>& sizes) {
  ParameterLayout layout;
  for (const int64_t size : sizes) {
    ParameterSegment segment;
    segment.name = "t" + std::to_string(layout.segments.size());
    segment.shape = Shape(1, size);
    segment.offset = layout.num_elements;
    segment.num_elements = size;
    segment.has_weight_decay = size >= 10;
    layout.segments.push_back(segment);
    layout.num_elements += size;
  }
  return layout;
}

/// With what parameter groups can say: t0 learns slowly, t1 has a decay of its
/// own, t2 is frozen, t3 learns fast and has none; the others stay.
inline ParameterLayout WithGroups(ParameterLayout layout) {
  layout.segments[0].learning_rate_scale = 0.25;
  layout.segments[1].weight_decay = 0.05;
  layout.segments[2].learning_rate_scale = 0;
  layout.segments[3].learning_rate_scale = 2;
  layout.segments[3].weight_decay = 0;
  return layout;
}

class ToyProblem {
 public:
  ToyProblem(const ParameterLayout& layout, uint64_t seed) : seed_(seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (const ParameterSegment& segment : layout.segments) {
      // Tensors whose gradients differ in size by orders of magnitude.
      const double size = std::exp(normal(random));
      for (int64_t i = 0; i < segment.num_elements; ++i) {
        // Floats, so that all precisions begin at the same point.
        start_.push_back(static_cast<float>(normal(random)));
        target_.push_back(normal(random));
        curvature_.push_back(size * std::exp(0.5 * normal(random)));
      }
    }
  }

  const std::vector<double>& start() const { return start_; }
  double target(int64_t i) const { return target_[static_cast<size_t>(i)]; }

  /// The gradient that `rank` sees at `weights`. The noise depends on rank,
  /// step and element alone.
  template <typename Real>
  std::vector<Real> Gradient(int rank, int64_t step,
                             const std::vector<Real>& weights) const {
    std::mt19937_64 random(seed_ + 1000003 * static_cast<uint64_t>(step) +
                           7919 * static_cast<uint64_t>(rank + 1));
    std::normal_distribution<double> normal;
    std::vector<Real> gradient(weights.size());
    for (size_t i = 0; i < weights.size(); ++i) {
      const double away = static_cast<double>(weights[i]) - target_[i];
      gradient[i] =
          static_cast<Real>(curvature_[i] * (away + 0.5 * normal(random)));
    }
    return gradient;
  }

 private:
  const uint64_t seed_;
  std::vector<double> start_;
  std::vector<double> target_;
  std::vector<double> curvature_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_TOY_PROBLEM_H_
