#include "worker/optim/lamb.h"

#include <algorithm>
#include <cmath>

#include "worker/optim/lane_reduction.h"
#include "worker/optim/moment_descent.h"

namespace deltapipe {

template <typename Real>
double LambSegmentStep(const OptimizerOptions& options, double weight_decay,
                       double learning_rate, double clip_factor,
                       absl::Span<const Real> gradient, absl::Span<Real> m,
                       absl::Span<Real> v, absl::Span<Real> w) {
  const Real beta1 = static_cast<Real>(options.beta1);
  const Real beta2 = static_cast<Real>(options.beta2);
  const Real new1 = static_cast<Real>(1.0 - options.beta1);
  const Real new2 = static_cast<Real>(1.0 - options.beta2);
  const Real epsilon = static_cast<Real>(options.epsilon);
  const Real clip = static_cast<Real>(clip_factor);
  const Real decay = static_cast<Real>(weight_decay);
  const int64_t count = static_cast<int64_t>(w.size());
  LaneSumOfSquares update_squares;
  LaneSumOfSquares weight_squares;
  for (int64_t begin = 0; begin < count; begin += kOptimizerBlock) {
    const int64_t size = std::min(kOptimizerBlock, count - begin);
    const Real* __restrict block_g = gradient.data() + begin;
    const Real* __restrict block_w = w.data() + begin;
    Real* __restrict block_m = m.data() + begin;
    Real* __restrict block_v = v.data() + begin;
    Real update[kOptimizerBlock];
    for (int64_t i = 0; i < size; ++i) {
      const Real g = clip * block_g[i];
      block_m[i] = beta1 * block_m[i] + new1 * g;
      block_v[i] = beta2 * block_v[i] + new2 * (g * g);
      update[i] =
          block_m[i] / (std::sqrt(block_v[i]) + epsilon) + decay * block_w[i];
    }
    update_squares.Add(update, size);
    weight_squares.Add(block_w, size);
  }

  const double update_norm = std::sqrt(update_squares.Sum());
  const double weight_norm = std::sqrt(weight_squares.Sum());
  double coefficient = 1.0;
  if (update_norm > 0 && weight_norm > 0) {
    coefficient = std::clamp(weight_norm / update_norm, options.min_coefficient,
                             options.max_coefficient);
  }
  DescendAlongMoments<Real>(options, learning_rate * coefficient, weight_decay,
                            count, m.data(), v.data(), w.data());
  return coefficient;
}

template <typename Real>
Lamb<Real>::Lamb(const OptimizerOptions& options, const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      momentum_(static_cast<size_t>(layout.num_elements)),
      variance_(static_cast<size_t>(layout.num_elements)) {
  this->AddState("momentum", &momentum_);
  this->AddState("variance", &variance_);
}

template <typename Real>
void Lamb<Real>::Apply(int64_t step, double learning_rate, double clip_factor,
                       absl::Span<Real> weights) {
  for (const ParameterSegment& segment : this->layout_.segments) {
    const size_t offset = static_cast<size_t>(segment.offset);
    const size_t size = static_cast<size_t>(segment.num_elements);
    LambSegmentStep<Real>(this->options_, this->WeightDecay(segment),
                          learning_rate * segment.learning_rate_scale,
                          clip_factor, this->gradient_.subspan(offset, size),
                          absl::MakeSpan(momentum_).subspan(offset, size),
                          absl::MakeSpan(variance_).subspan(offset, size),
                          weights.subspan(offset, size));
  }
}

template double LambSegmentStep<float>(const OptimizerOptions&, double, double,
                                       double, absl::Span<const float>,
                                       absl::Span<float>, absl::Span<float>,
                                       absl::Span<float>);
template double LambSegmentStep<double>(const OptimizerOptions&, double, double,
                                        double, absl::Span<const double>,
                                        absl::Span<double>, absl::Span<double>,
                                        absl::Span<double>);
template class Lamb<float>;
template class Lamb<double>;

}  // namespace deltapipe
