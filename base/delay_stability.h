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
//   x_{t+1} = x_t + v + s (v - v_t)                  v as standard
//
// which is stable while eta lambda is below a threshold. The last is a
// look-ahead of s steps: x is moved s momenta ahead of the weights that
// standard momentum would have, so that its gradient is of where they are
// going. s = m is Nesterov's form. Pure, thread-safe.
#ifndef DELTAPIPE_BASE_DELAY_STABILITY_H_
#define DELTAPIPE_BASE_DELAY_STABILITY_H_

#include <string_view>

namespace deltapipe {

enum class MomentumDelay {
  kStandard,  // one momentum for all steps
  kShifted,   // tau + 1 of them, which steps use in turn
};

/// The threshold of eta lambda: all roots of the recursion's characteristic
/// polynomial lie inside the unit circle below it. An average in place of the
/// momentum, (1 - m) of each gradient, bears 1 / (1 - m) times as much. `delay`
/// in [0, 1000], `momentum` in [0, 1), `look_ahead` in [0, 100], of the
/// standard form only. Without momentum and look-ahead it is 2 sin(pi / (2 (2
/// tau + 1))).
double LargestStableRate(int delay, double momentum, MomentumDelay form,
                         double look_ahead = 0);

/// What train.optimizer.look_ahead is where a spec does not say it: delay + 1
/// for adam and adamw, from the weights that a gradient is of to those that it
/// makes, and 0 without a delay and for other kinds.
double DefaultLookAhead(std::string_view optimizer_kind, int delay);

/// The rule: eta(tau) = eta(0) sin(pi / (2 (2 tau + 1))). 1 without delay.
double DelayRateFactor(int delay);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_DELAY_STABILITY_H_
