// Stochastic gradient descent with momentum, as users of other frameworks know
// it: weight decay is added to the gradient, and the momentum is not damped.
//
//   g <- clip * g + decay * w ; m <- momentum * m + g ; w <- w - rate * m
//
// What never had a gradient (a momentum of 0) does not decay.
//
// With a look-ahead of s steps, weights are kept moved ahead by s momenta:
//
//   w <- w - rate * (m + s (m - former m))
//
// s = momentum is Nesterov's form, w - rate * (momentum * m + g).
//
// With shifted momentum steps use delay + 1 momenta in turn, so that each holds
// gradients of weights of its own (arXiv 1909.12340, base/delay_stability.h).
#ifndef DELTAPIPE_WORKER_OPTIM_SGD_H_
#define DELTAPIPE_WORKER_OPTIM_SGD_H_

#include <vector>

#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class Sgd : public FlatOptimizer<Real> {
 public:
  Sgd(const OptimizerOptions& options, const ParameterLayout& layout);
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) override;

 private:
  std::vector<std::vector<Real>> momenta_;  // used in turn
};

extern template class Sgd<float>;
extern template class Sgd<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_SGD_H_
