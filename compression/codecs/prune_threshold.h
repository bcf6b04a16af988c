// The threshold of stochastic pruning for a requested sparsity.
//
// Pruning with threshold tau makes x with |x| < tau zero with probability
// 1 - |x| / tau, so that of a tensor of n values
//   n_zero + sum over 0 < |x| < tau of (1 - |x| / tau)
// are zero in expectation. NaN and infinities are never pruned.
//
// All steps are exact or in plain double operations in a fixed order: the same
// threshold on every machine.
#ifndef DELTAPIPE_COMPRESSION_CODECS_PRUNE_THRESHOLD_H_
#define DELTAPIPE_COMPRESSION_CODECS_PRUNE_THRESHOLD_H_

#include <cfloat>

#include "absl/types/span.h"
#include "base/host_device.h"
#include "compression/kernels/portable_math.h"

namespace deltapipe {

enum class PruneModel { kLognormal, kNormal, kExact };

/// How far the expected share of zeros may be from `sparsity`: 0.004, so that
/// what is drawn from it stays within 0.01 for 2^16 values, or less where that
/// would be more than half of what is kept.
DP_HOST_DEVICE inline double PruneTolerance(double sparsity) {
  const double half = (1 - sparsity) / 2;
  return half < 0.004 ? half : 0.004;
}

/// A threshold of this value, or the largest float.
DP_HOST_DEVICE inline float ToThreshold(double value) {
  return static_cast<float>(value < double{FLT_MAX} ? value : double{FLT_MAX});
}

/// Finds x in [low, high] where the increasing `function` reaches `target`.
template <class Function>
DP_HOST_DEVICE inline double Bisect(double low, double high, double target,
                                    const Function& function) {
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (function(middle) < target ? low : high) = middle;
  }
  return high;
}

/// The threshold for which the expected share of zeros among `values` is
/// `sparsity` (above 0, below 1), to within PruneTolerance. 0 where there are
/// as many zeros already; the largest float where none reaches it.
///
/// kLognormal and kNormal fit the distribution and take its threshold, unless
/// the share that it gives these very values is off by more than the tolerance:
/// then, as with kExact, the threshold is found from the values.
float PruneThreshold(PruneModel model, double sparsity,
                     absl::Span<const float> values);

/// The expected share of zeros; 0 for no values.
double ExpectedSparsity(absl::Span<const float> values, float threshold);

/// ln(threshold) - mu for ln|x| ~ N(mu, sigma^2): a = e^result solves
///   S = Phi(ln a / sigma) - e^(sigma^2 / 2) / a * Phi(ln a / sigma - sigma)
/// (Chmiel et al., "Neural gradients are near-lognormal", ICLR 2021, arXiv
/// 2006.08173, on stochastic pruning).
DP_HOST_DEVICE inline double LognormalPruneThreshold(double sparsity,
                                                     double sigma) {
  // A spread of 0 has its limit, 1 / (1 - S) above the only value, near here.
  sigma = sigma < 1e-3 ? 1e-3 : sigma;
  const auto share = [sigma](double log_a) {
    const double z = log_a / sigma;
    return NormalDistribution(z) - PortableExp(sigma * sigma / 2 - log_a) *
                                       NormalDistribution(z - sigma);
  };
  return Bisect(-10 * sigma - 10, sigma * sigma + 10 * sigma + 40, sparsity,
                share);
}

/// threshold / sigma for x ~ N(0, sigma^2): t solves
///   S = 2 Phi(t) - 1 - 2 (phi(0) - phi(t)) / t.
/// Ye et al., "Accelerating CNN training by pruning activation gradients", ECCV
/// 2020, arXiv 1908.00173, have t = Phi^-1((1 + p) / 2), whose share of zeros
/// is not p (54 % for p = 0.9), since what is pruned in part survives as tau.
DP_HOST_DEVICE inline double NormalPruneThreshold(double sparsity) {
  const auto share = [](double t) {
    return 2 * NormalDistribution(t) - 1 -
           2 * (NormalDensity(0) - NormalDensity(t)) / t;
  };
  return Bisect(1e-4, 1e9, sparsity, share);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_PRUNE_THRESHOLD_H_
