// The last pass of LAMB, 1-bit LAMB, 1-bit Adam and 0/1 Adam over some
// elements:
//
//   w <- w - rate (m / (sqrt(v) + eps) + decay w)
//
// Weights whose variance is 0 do not decay: they never had a gradient (rows of
// an embedding that nobody uses), and stay as they are.
#ifndef DELTAPIPE_WORKER_OPTIM_MOMENT_DESCENT_H_
#define DELTAPIPE_WORKER_OPTIM_MOMENT_DESCENT_H_

#include <cmath>
#include <cstdint>

#include "base/wide_vectors.h"
#include "worker/optim/optimizer.h"

namespace deltapipe {

template <typename Real>
void DescendAlongMoments(const OptimizerOptions& options, double rate,
                         double weight_decay, int64_t count,
                         const Real* __restrict m, const Real* __restrict v,
                         Real* __restrict w) {
  const Real step = static_cast<Real>(rate);
  const Real eps = static_cast<Real>(options.epsilon);
  const Real decay = static_cast<Real>(weight_decay);
  WithWideVectors([=] {
    for (int64_t i = 0; i < count; ++i) {
      const Real of_w = v[i] > 0 ? decay : Real{0};
      w[i] -= step * (m[i] / (std::sqrt(v[i]) + eps) + of_w * w[i]);
    }
  });
}

/// m <- b1 m + (1 - b1) clip g ; v <- b2 v + (1 - b2) (clip g)^2 ; then the
/// descent, without bias correction: Adam as 1-bit Adam and 0/1 Adam warm up.
template <typename Real>
void AdamWithoutCorrection(const OptimizerOptions& options, double rate,
                           double weight_decay, double clip_factor,
                           int64_t count, const Real* __restrict gradient,
                           Real* __restrict m, Real* __restrict v,
                           Real* __restrict w) {
  const Real b1 = static_cast<Real>(options.beta1);
  const Real b2 = static_cast<Real>(options.beta2);
  const Real new1 = static_cast<Real>(1.0 - options.beta1);
  const Real new2 = static_cast<Real>(1.0 - options.beta2);
  const Real step = static_cast<Real>(rate);
  const Real eps = static_cast<Real>(options.epsilon);
  const Real decay = static_cast<Real>(weight_decay);
  const Real clip = static_cast<Real>(clip_factor);
  WithWideVectors([=] {
    for (int64_t i = 0; i < count; ++i) {
      const Real g = clip * gradient[i];
      m[i] = b1 * m[i] + new1 * g;
      v[i] = b2 * v[i] + new2 * (g * g);
      const Real of_w = v[i] > 0 ? decay : Real{0};
      w[i] -= step * (m[i] / (std::sqrt(v[i]) + eps) + of_w * w[i]);
    }
  });
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_MOMENT_DESCENT_H_
