// AdamW (Loshchilov, Hutter: Decoupled weight decay regularization, ICLR 2019,
// algorithm 2), with the decay multiplied by the learning rate:
//
//   m <- b1 m + (1 - b1) g ; v <- b2 v + (1 - b2) g^2
//   w <- w - rate * ((m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + decay w)
//
// t counts the steps that were applied; skipped ones do not age the averages.
#ifndef DELTAPIPE_WORKER_OPTIM_ADAMW_H_
#define DELTAPIPE_WORKER_OPTIM_ADAMW_H_

#include <vector>

#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class AdamW : public FlatOptimizer<Real> {
 public:
  AdamW(const OptimizerOptions& options, const ParameterLayout& layout);
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) override;

 private:
  std::vector<Real> momentum_;
  std::vector<Real> variance_;
  /// One value; stops at 2^24, where both corrections have long been 1.
  std::vector<Real> applied_steps_;
};

extern template class AdamW<float>;
extern template class AdamW<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ADAMW_H_
