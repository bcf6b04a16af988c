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

#include "absl/types/span.h"

namespace deltapipe {

enum class PruneModel { kLognormal, kNormal, kExact };

/// How far the expected share of zeros may be from `sparsity`: 0.01, or less
/// where that would be more than half of what is kept.
double PruneTolerance(double sparsity);

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
double LognormalPruneThreshold(double sparsity, double sigma);

/// threshold / sigma for x ~ N(0, sigma^2): t solves
///   S = 2 Phi(t) - 1 - 2 (phi(0) - phi(t)) / t.
/// Ye et al., "Accelerating CNN training by pruning activation gradients", ECCV
/// 2020, arXiv 1908.00173, have t = Phi^-1((1 + p) / 2), whose share of zeros
/// is not p (54 % for p = 0.9), since what is pruned in part survives as tau.
double NormalPruneThreshold(double sparsity);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_PRUNE_THRESHOLD_H_
