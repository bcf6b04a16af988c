// OneBitOptimizer<Real>: what 1-bit Adam and 1-bit LAMB share: a warm-up in
// full precision; then the variance is frozen, and the momentum, not the
// gradient, is synchronised, compressed, with error feedback (arXiv 2102.02888
// and 2104.06069).
//
// At the first compressed step the variance freezes, each tensor l gets a scale
// sigma_l (1 for 1-bit Adam) that stays, and the rows that never had a gradient
// are found (dead_rows.h). Residuals of an earlier compressed phase are
// dropped, as they were measured with other scales.
//
// Compressed steps:
//   Prepare: x = sigma_l (b1 m + (1 - b1) g_local)  is synchronised
//   Apply:   m' = x / sigma_l ; g^ = (m' - b1 m) / (1 - b1)
//            with clipping: g^ <- clip g^ ; m' <- b1 m + (1 - b1) g^
//            m <- m' ; then the step of the derived class
// A row that is dead at the freeze has neither momentum nor update until it
// wakes; up to the freeze the warm-up treats it as any other.
#ifndef DELTAPIPE_WORKER_OPTIM_ONEBIT_OPTIMIZER_H_
#define DELTAPIPE_WORKER_OPTIM_ONEBIT_OPTIMIZER_H_

#include <vector>

#include "worker/optim/compression_start.h"
#include "worker/optim/dead_rows.h"
#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class OneBitOptimizer : public FlatOptimizer<Real> {
 public:
  using Request = typename FlatOptimizer<Real>::Request;

  Request PrepareEarly(int64_t step, double learning_rate,
                       absl::Span<const Real> weights,
                       absl::Span<Real> gradient) final;
  void TakeGradient(const ElementRange& range) final;
  void Wake(absl::Span<const uint8_t> is_woken) final;
  double MeanGradientSquaredNorm() final;
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) final;
  void Skip() final;
  void SetCompressing(bool on) final;
  CompressionEvidence Evidence() const override;

 protected:
  using JoinedRow = typename DeadRows<Real>::JoinedRow;

  OneBitOptimizer(const OptimizerOptions& options,
                  const ParameterLayout& layout);

  /// A step in full precision, with gradient_.
  virtual void Warm(double learning_rate, double clip_factor,
                    absl::Span<Real> weights) = 0;
  /// A compressed step: UpdateMomentum over the live elements, and the rest.
  virtual void Descend(double learning_rate, double clip_factor,
                       absl::Span<Real> weights) = 0;
  /// Sets sigma_ (all 1) and what else begins with the freeze. The dead rows
  /// are known.
  virtual void Freeze() {}
  /// The step of the freeze was skipped: as before Freeze.
  virtual void UndoFreeze() {}
  /// Full-precision steps go on after compressed ones.
  virtual void Unfreeze() {}
  /// `row` is live from the next step on; `variance` is what it was given.
  virtual void RowJoined(const JoinedRow& row, Real variance) {}

  /// Takes the synchronised momentum of elements [begin, begin + size), size at
  /// most kOptimizerBlock, and leaves the clipped mean gradient in `gradient`,
  /// which may be null if clip is 1.
  void UpdateMomentum(int64_t begin, int64_t size, Real sigma, Real clip,
                      Real* gradient);

  /// A value an element, for Descend: free from UpdateMomentum on, and until
  /// the next gradient is taken.
  Real* scratch() { return scaled_momentum_.data(); }

  bool is_frozen() const { return frozen_[0] != 0; }
  const DeadRows<Real>& rows() const { return rows_; }

  std::vector<Real> momentum_;
  std::vector<Real> variance_;
  std::vector<Real> sigma_;  // one value a tensor

 private:
  /// g^ of a block, unclipped.
  void ReconstructGradient(int64_t begin, int64_t size, Real sigma,
                           Real* gradient) const;
  /// In the step of the freeze: what rounds to a variance of zero is no
  /// momentum.
  void ForgetMomentumOfDeadRows(const ElementRange& range);
  void StateImported() override { rows_.Rebuild(); }

  CompressionStart<Real> start_;
  DeadRows<Real> rows_;
  std::vector<Real> frozen_;           // one value: 0 or 1
  std::vector<Real> scaled_momentum_;  // x, its mean after the sync
  bool froze_in_this_step_ = false;
};

extern template class OneBitOptimizer<float>;
extern template class OneBitOptimizer<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ONEBIT_OPTIMIZER_H_
