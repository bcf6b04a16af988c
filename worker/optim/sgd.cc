#include "worker/optim/sgd.h"

#include "absl/strings/str_cat.h"
#include "base/wide_vectors.h"

namespace deltapipe {

template <typename Real>
Sgd<Real>::Sgd(const OptimizerOptions& options, const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      momenta_(static_cast<size_t>(options.momentum_shift) + 1) {
  for (size_t i = 0; i < momenta_.size(); ++i) {
    momenta_[i].resize(static_cast<size_t>(layout.num_elements));
    this->AddState(i == 0 ? "momentum" : absl::StrCat("momentum_", i),
                   &momenta_[i]);
  }
}

template <typename Real>
void Sgd<Real>::Apply(int64_t step, double learning_rate, double clip_factor,
                      absl::Span<Real> weights) {
  std::vector<Real>& turn =
      momenta_[static_cast<size_t>(step) % momenta_.size()];
  const Real momentum = static_cast<Real>(this->options_.momentum);
  const Real ahead = static_cast<Real>(this->options_.look_ahead);
  const Real clip = static_cast<Real>(clip_factor);
  for (const ParameterSegment& segment : this->layout_.segments) {
    const Real rate =
        static_cast<Real>(learning_rate * segment.learning_rate_scale);
    const Real decay = static_cast<Real>(this->WeightDecay(segment));
    const Real* __restrict gradient = this->gradient_.data() + segment.offset;
    Real* __restrict m = turn.data() + segment.offset;
    Real* __restrict w = weights.data() + segment.offset;
    WithWideVectors([=, count = segment.num_elements] {
      for (int64_t i = 0; i < count; ++i) {
        // Nothing decays that never had a gradient.
        const Real former = m[i];
        const Real clipped = clip * gradient[i];
        const bool is_used = former != 0 || clipped != 0;
        const Real g = clipped + (is_used ? decay : Real{0}) * w[i];
        m[i] = momentum * former + g;
        w[i] -= rate * (m[i] + ahead * (m[i] - former));
      }
    });
  }
}

template class Sgd<float>;
template class Sgd<double>;

}  // namespace deltapipe
