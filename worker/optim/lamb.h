// LAMB (arXiv 1904.00962) in the form that 1-bit LAMB warms up with: without
// bias correction, and with a bounded trust ratio per tensor.
//
//   m <- b1 m + (1 - b1) g ; v <- b2 v + (1 - b2) g^2
//   u = m / (sqrt(v) + eps) + decay w
//   c = clamp(||w|| / ||u||, min_coefficient, max_coefficient) if both norms
//   are
//       positive, else 1
//   w <- w - rate c u
#ifndef DELTAPIPE_WORKER_OPTIM_LAMB_H_
#define DELTAPIPE_WORKER_OPTIM_LAMB_H_

#include <vector>

#include "worker/optim/cut_tensors.h"
#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

/// Of a tensor, or of a part of one.
struct LambSquares {
  double update = 0;  // the sum of u^2
  double weight = 0;  // of w^2
};

/// The first half of a step: updates m and v. The sums are in the order of
/// lane_reduction.h.
template <typename Real>
LambSquares UpdateLambMoments(const OptimizerOptions& options,
                              double weight_decay, double clip_factor,
                              absl::Span<const Real> gradient,
                              absl::Span<Real> m, absl::Span<Real> v,
                              absl::Span<const Real> w);
/// c, of the sums of a whole tensor.
double LambCoefficient(const OptimizerOptions& options,
                       const LambSquares& squares);

/// One tensor's step: updates m, v and w, and returns the coefficient c.
template <typename Real>
double LambSegmentStep(const OptimizerOptions& options, double weight_decay,
                       double learning_rate, double clip_factor,
                       absl::Span<const Real> gradient, absl::Span<Real> m,
                       absl::Span<Real> v, absl::Span<Real> w);

template <typename Real>
class Lamb : public FlatOptimizer<Real> {
 public:
  /// `shared`: of a layout that has parts of tensors (cut_tensors.h). Whole
  /// tensors are updated to the bit as without; of one that is cut, squares are
  /// added up part by part, in the order of the ranks.
  Lamb(const OptimizerOptions& options, const ParameterLayout& layout,
       SharedNorms shared = {});
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) override;

 private:
  void ApplyCut(int64_t step, double learning_rate, double clip_factor,
                absl::Span<Real> weights);

  const SharedNorms shared_;
  std::vector<Real> momentum_;
  std::vector<Real> variance_;
};

extern template class Lamb<float>;
extern template class Lamb<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_LAMB_H_
