// 1-bit LAMB (arXiv 2104.06069): LAMB for the first compress_after_step steps;
// then onebit_optimizer.h, and LAMB's coefficient is frozen and corrected by
// how the variance would have moved.
//
// Warm-up: as lamb.h, and for each tensor c_ema <- cb c_ema + (1 - cb) c unless
// c is exactly 1. (A tensor whose c is always 1 thus has c_ema = 0 and rests
// once compression begins.)
//
// At the first compressed step v~ <- v, and each tensor l gets
//   sigma_l = mean_k(q_k) / q_l  with  q_l = ||m_l|| / sqrt(elements of l),
// so that one scale fits the whole flat vector; sigma_l = 1 where m_l is all
// zero (or so small that sigma_l would not be finite), as nothing can be
// equalised there. Only live rows count; tensors without any are not in the
// mean.
//
// Compressed steps, after m' and g^ of onebit_optimizer.h:
//   v~ <- b2 v~ + (1 - b2) g^^2 ; d = sqrt(v) + eps
//   p = m' / d ; u = p + decay w ; r = max(d / (sqrt(v~) + eps))
//   with decay: rho = min(1, ||p|| / ||u||) ; r <- r rho + (1 - rho)
//   r <- clip(r, factor_min, factor_max), then to within factor_threshold of
//   its last value
//   w <- w - rate c_ema r u
// There is no bias correction and no dummy first step. When full-precision
// steps go on, v <- v~. A tensor that was dead as a whole and wakes has c_ema =
// 1, within its limits.
#ifndef DELTAPIPE_WORKER_OPTIM_ONEBIT_LAMB_H_
#define DELTAPIPE_WORKER_OPTIM_ONEBIT_LAMB_H_

#include <vector>

#include "worker/optim/onebit_optimizer.h"

namespace deltapipe {

template <typename Real>
class OneBitLamb : public OneBitOptimizer<Real> {
 public:
  OneBitLamb(const OptimizerOptions& options, const ParameterLayout& layout);
  CompressionEvidence Evidence() const override;

 private:
  using JoinedRow = typename OneBitOptimizer<Real>::JoinedRow;

  void Freeze() override;
  void UndoFreeze() override;
  void Unfreeze() override;
  void RowJoined(const JoinedRow& row, Real variance) override;
  void Warm(double learning_rate, double clip_factor,
            absl::Span<Real> weights) override;
  void Descend(double learning_rate, double clip_factor,
               absl::Span<Real> weights) override;
  /// Updates momentum and fresh variance of a segment from the synchronised
  /// momentum, and leaves u in scratch(); returns the factor before its limits.
  double UpdateSegment(size_t segment_index, double clip_factor,
                       absl::Span<const Real> weights);

  std::vector<Real> fresh_variance_;
  // One value a tensor.
  std::vector<Real> coefficient_;           // c_ema
  std::vector<Real> coefficient_variance_;  // of c around c_ema, with the same
                                            // memory
  std::vector<Real> factor_;                // r of the last compressed step
};

extern template class OneBitLamb<float>;
extern template class OneBitLamb<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ONEBIT_LAMB_H_
