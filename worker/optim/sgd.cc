#include "worker/optim/sgd.h"

namespace deltapipe {

template <typename Real>
Sgd<Real>::Sgd(const OptimizerOptions& options, const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      momentum_(static_cast<size_t>(layout.num_elements)) {
  this->AddState("momentum", &momentum_);
}

template <typename Real>
void Sgd<Real>::Apply(int64_t step, double learning_rate, double clip_factor,
                      absl::Span<Real> weights) {
  const Real momentum = static_cast<Real>(this->options_.momentum);
  const Real clip = static_cast<Real>(clip_factor);
  for (const ParameterSegment& segment : this->layout_.segments) {
    const Real rate =
        static_cast<Real>(learning_rate * segment.learning_rate_scale);
    const Real decay = static_cast<Real>(this->WeightDecay(segment));
    const Real* __restrict gradient = this->gradient_.data() + segment.offset;
    Real* __restrict m = momentum_.data() + segment.offset;
    Real* __restrict w = weights.data() + segment.offset;
    for (int64_t i = 0; i < segment.num_elements; ++i) {
      const Real g = clip * gradient[i] + decay * w[i];
      m[i] = momentum * m[i] + g;
      w[i] -= rate * m[i];
    }
  }
}

template class Sgd<float>;
template class Sgd<double>;

}  // namespace deltapipe
