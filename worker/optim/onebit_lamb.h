// 1-bit LAMB (arXiv 2104.06069): LAMB for the first compress_after_step steps;
// then the momentum, not the gradient, is synchronised, in one bit, and LAMB's
// coefficient is frozen and corrected by how the variance would have moved.
//
// Warm-up: as lamb.h, and for each tensor c_ema <- cb c_ema + (1 - cb) c unless
// c is exactly 1. (A tensor whose c is always 1 thus has c_ema = 0 and rests
// once compression begins.)
//
// At the first compressed step v~ <- v, and each tensor l gets
//   sigma_l = mean_k(q_k) / q_l  with  q_l = ||m_l|| / sqrt(elements of l),
// so that one scale fits the whole flat vector; sigma_l = 1 where m_l is all
// zero (or so small that sigma_l would not be finite), as nothing can be
// equalised there. Then v and sigma stay as they are.
//
// Compressed steps:
//   Prepare: x = sigma_l (b1 m + (1 - b1) g_local)  is synchronised
//   (kCompressed) Apply:   m' = x / sigma_l ; g^ = (m' - b1 m) / (1 - b1)
//            with clipping: g^ <- clip g^ ; m' <- b1 m + (1 - b1) g^
//            v~ <- b2 v~ + (1 - b2) g^^2 ; d = sqrt(v) + eps
//            p = m' / d ; u = p + decay w ; r = max(d / (sqrt(v~) + eps))
//            with decay: rho = min(1, ||p|| / ||u||) ; r <- r rho + (1 - rho)
//            r <- clip(r, factor_min, factor_max), then to within
//            factor_threshold of its last value
//            w <- w - rate c_ema r u ; m <- m'
// There is no bias correction and no dummy first step.
#ifndef DELTAPIPE_WORKER_OPTIM_ONEBIT_LAMB_H_
#define DELTAPIPE_WORKER_OPTIM_ONEBIT_LAMB_H_

#include <vector>

#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class OneBitLamb : public FlatOptimizer<Real> {
 public:
  using Request = typename FlatOptimizer<Real>::Request;

  OneBitLamb(const OptimizerOptions& options, const ParameterLayout& layout);
  Request Prepare(int64_t step, double learning_rate,
                  absl::Span<const Real> weights,
                  absl::Span<Real> gradient) override;
  double MeanGradientSquaredNorm() override;
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) override;
  void Skip() override;

 private:
  bool is_frozen() const { return frozen_[0] != 0; }
  void Freeze();
  void Warm(double learning_rate, double clip_factor, absl::Span<Real> weights);
  /// Updates momentum and fresh variance of a segment from the synchronised
  /// momentum; returns the factor before its limits.
  double UpdateSegment(const ParameterSegment& segment, Real sigma,
                       double clip_factor, absl::Span<const Real> weights);

  std::vector<Real> momentum_;
  std::vector<Real> variance_;
  std::vector<Real> fresh_variance_;
  // One value a tensor.
  std::vector<Real> coefficient_;  // c_ema
  std::vector<Real> factor_;       // r of the last compressed step
  std::vector<Real> sigma_;
  std::vector<Real> frozen_;  // one value: 0 or 1

  std::vector<Real> scaled_momentum_;  // x, its mean after the sync
  bool froze_in_this_step_ = false;
};

extern template class OneBitLamb<float>;
extern template class OneBitLamb<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ONEBIT_LAMB_H_
