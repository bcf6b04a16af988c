// How large a learning rate may be when gradients are of weights that are some
// updates old, and by how much to lower one that was found without delay
// (Giladi et al., arXiv 1909.12340).
//
// Near a minimum, along the eigenvector of the Hessian's largest eigenvalue
// lambda, gradient descent with delay tau is the recursion
//
//   v <- m v_t - eta lambda x_{t-tau}                standard momentum
//   v <- m v_{t-tau} - eta lambda x_{t-tau}          shifted momentum
//   x_{t+1} = x_t + v                                of both
//   x_{t+1} = x_t + m v - eta lambda x_{t-tau}       Nesterov's, v as standard
//
// which is stable while eta lambda is below a threshold. Pure, thread-safe.
#ifndef DELTAPIPE_BASE_DELAY_STABILITY_H_
#define DELTAPIPE_BASE_DELAY_STABILITY_H_

namespace deltapipe {

enum class MomentumDelay {
  kStandard,  // one momentum for all steps
  kShifted,   // tau + 1 of them, which steps use in turn
  kNesterov,  // one; weights are moved ahead by it
};

/// The threshold of eta lambda: all roots of the recursion's characteristic
/// polynomial lie inside the unit circle below it. An average in place of the
/// momentum, (1 - m) of each gradient, bears 1 / (1 - m) times as much. `delay`
/// in [0, 1000], `momentum` in [0, 1). Without momentum it is 2 sin(pi / (2 (2
/// tau + 1))).
double LargestStableRate(int delay, double momentum, MomentumDelay form);

/// The rule: eta(tau) = eta(0) sin(pi / (2 (2 tau + 1))). 1 without delay.
double DelayRateFactor(int delay);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_DELAY_STABILITY_H_
