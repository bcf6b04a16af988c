// Adam (Kingma, Ba: Adam, ICLR 2015, algorithm 1), with weight decay as an L2
// term of the gradient, and AdamW (Loshchilov, Hutter: Decoupled weight decay
// regularization, ICLR 2019, algorithm 2), with the decay multiplied by the
// learning rate:
//
//   adam:   g <- g + decay w
//   m <- b1 m + (1 - b1) g ; v <- b2 v + (1 - b2) g^2
//   p = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//   with a look-ahead of s steps, where weights are kept moved ahead by s
//   momenta, the numerator of p is n + s (n - former n), n being the numerator
//   above and `former n` that of the step before (of the first step: n). s = b1
//   is Nesterov's form (Dozat, ICLR 2016 workshop) but for the corrections.
//   adam:   w <- w - rate p
//   adamw:  w <- w - rate (p + decay w)
//
// A weight that never had a gradient (v = 0) does not decay.
//
// t counts the steps that were applied; skipped ones do not age the averages.
#ifndef DELTAPIPE_WORKER_OPTIM_ADAM_H_
#define DELTAPIPE_WORKER_OPTIM_ADAM_H_

#include <vector>

#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class Adam : public FlatOptimizer<Real> {
 public:
  /// `options.kind` is "adam" or "adamw".
  Adam(const OptimizerOptions& options, const ParameterLayout& layout);
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) override;

 private:
  const bool has_decoupled_decay_;
  std::vector<Real> momentum_;
  std::vector<Real> variance_;
  /// One value; stops at 2^24, where both corrections have long been 1.
  std::vector<Real> applied_steps_;
};

extern template class Adam<float>;
extern template class Adam<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ADAM_H_
