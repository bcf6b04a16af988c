#include "worker/optim/onebit_adam.h"

#include <algorithm>

#include "worker/optim/moment_descent.h"

namespace deltapipe {

template <typename Real>
void OneBitAdam<Real>::Warm(double learning_rate, double clip_factor,
                            absl::Span<Real> weights) {
  for (const ParameterSegment& segment : this->layout_.segments) {
    const int64_t at = segment.offset;
    AdamWithoutCorrection<Real>(
        this->options_, learning_rate * segment.learning_rate_scale,
        this->WeightDecay(segment), clip_factor, segment.num_elements,
        this->gradient_.data() + at, this->momentum_.data() + at,
        this->variance_.data() + at, weights.data() + at);
  }
}

template <typename Real>
void OneBitAdam<Real>::Descend(double learning_rate, double clip_factor,
                               absl::Span<Real> weights) {
  const Real clip = static_cast<Real>(clip_factor);
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const double rate = learning_rate * segment.learning_rate_scale;
    const double decay = this->WeightDecay(segment);
    for (const ElementRange& range : this->rows().live(l)) {
      for (int64_t at = range.begin; at < range.end; at += kOptimizerBlock) {
        const int64_t size = std::min(kOptimizerBlock, range.end - at);
        Real gradient[kOptimizerBlock];
        this->UpdateMomentum(at, size, this->sigma_[l], clip,
                             clip == Real{1} ? nullptr : gradient);
        DescendAlongMoments<Real>(
            this->options_, rate, decay, size, this->momentum_.data() + at,
            this->variance_.data() + at, weights.data() + at);
      }
    }
  }
}

template class OneBitAdam<float>;
template class OneBitAdam<double>;

}  // namespace deltapipe
