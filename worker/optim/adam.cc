#include "worker/optim/adam.h"

#include <algorithm>
#include <cmath>

#include "base/wide_vectors.h"

namespace deltapipe {

template <typename Real>
Adam<Real>::Adam(const OptimizerOptions& options, const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      has_decoupled_decay_(options.kind == "adamw"),
      momentum_(static_cast<size_t>(layout.num_elements)),
      variance_(static_cast<size_t>(layout.num_elements)),
      applied_steps_(1) {
  this->AddState("momentum", &momentum_);
  this->AddState("variance", &variance_);
  this->AddState("applied_steps", &applied_steps_);
}

template <typename Real>
void Adam<Real>::Apply(int64_t step, double learning_rate, double clip_factor,
                       absl::Span<Real> weights) {
  const OptimizerOptions& options = this->options_;
  applied_steps_[0] = std::min<Real>(applied_steps_[0] + 1, 1 << 24);
  const double t = static_cast<double>(applied_steps_[0]);
  // Of m and of the former m in the numerator.
  const double ahead = t > 1 ? options.look_ahead : 0;
  const Real of_m =
      static_cast<Real>((1.0 + ahead) / (1.0 - std::pow(options.beta1, t)));
  const Real of_former = static_cast<Real>(
      t > 1 ? ahead / (1.0 - std::pow(options.beta1, t - 1)) : 0);
  const Real correction2 =
      static_cast<Real>(1.0 / (1.0 - std::pow(options.beta2, t)));
  const Real beta1 = static_cast<Real>(options.beta1);
  const Real beta2 = static_cast<Real>(options.beta2);
  const Real new1 = static_cast<Real>(1.0 - options.beta1);
  const Real new2 = static_cast<Real>(1.0 - options.beta2);
  const Real epsilon = static_cast<Real>(options.epsilon);
  const Real clip = static_cast<Real>(clip_factor);
  for (const ParameterSegment& segment : this->layout_.segments) {
    const Real rate =
        static_cast<Real>(learning_rate * segment.learning_rate_scale);
    const Real all_decay = static_cast<Real>(this->WeightDecay(segment));
    const Real decay = has_decoupled_decay_ ? all_decay : Real{0};
    const Real l2 = has_decoupled_decay_ ? Real{0} : all_decay;
    const Real* __restrict gradient = this->gradient_.data() + segment.offset;
    Real* __restrict m = momentum_.data() + segment.offset;
    Real* __restrict v = variance_.data() + segment.offset;
    Real* __restrict w = weights.data() + segment.offset;
    WithWideVectors([=, count = segment.num_elements] {
      for (int64_t i = 0; i < count; ++i) {
        // Nothing decays that never had a gradient.
        const Real clipped = clip * gradient[i];
        const bool is_used = v[i] > 0 || clipped != 0;
        const Real g = clipped + (is_used ? l2 : Real{0}) * w[i];
        const Real former = m[i];
        m[i] = beta1 * former + new1 * g;
        v[i] = beta2 * v[i] + new2 * (g * g);
        const Real denominator = std::sqrt(v[i] * correction2) + epsilon;
        w[i] -= rate * ((m[i] * of_m - former * of_former) / denominator +
                        (is_used ? decay : Real{0}) * w[i]);
      }
    });
  }
}

template class Adam<float>;
template class Adam<double>;

}  // namespace deltapipe
