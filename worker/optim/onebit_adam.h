// 1-bit Adam (arXiv 2102.02888): Adam without bias correction for the first
// compress_after_step steps; then onebit_optimizer.h with
//
//   w <- w - rate (m' / (sqrt(v) + eps) + decay w)
//
// and v as it was at the switch. Weight decay is that of the reference
// (DeepSpeed's OnebitAdam): beside the momentum's direction, not in the
// gradient. There is no dummy first step. When full-precision steps go on, they
// do so from v as it was frozen, which then follows the gradients again.
#ifndef DELTAPIPE_WORKER_OPTIM_ONEBIT_ADAM_H_
#define DELTAPIPE_WORKER_OPTIM_ONEBIT_ADAM_H_

#include "worker/optim/onebit_optimizer.h"

namespace deltapipe {

template <typename Real>
class OneBitAdam : public OneBitOptimizer<Real> {
 public:
  OneBitAdam(const OptimizerOptions& options, const ParameterLayout& layout)
      : OneBitOptimizer<Real>(options, layout) {}

 private:
  void Warm(double learning_rate, double clip_factor,
            absl::Span<Real> weights) override;
  void Descend(double learning_rate, double clip_factor,
               absl::Span<Real> weights) override;
};

extern template class OneBitAdam<float>;
extern template class OneBitAdam<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ONEBIT_ADAM_H_
