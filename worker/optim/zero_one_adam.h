// 0/1 Adam (arXiv 2202.06009, as DeepSpeed's ZeroOneAdam computes it, without
// its dummy first step): first the variance is updated ever more rarely, then
// never, and ever more local steps lie between two synchronisations.
//
// Stage A, the first compress_after_step steps: of every k-th gradient the mean
// is taken in full precision and updates m and v; of the others it is taken
// compressed (kCompressed on the gradient) and updates m alone.
//   w <- w - rate (m / (sqrt(v) + eps) + decay w)
// k is 1 at first and doubles after every variance_update_scaler updates of v.
//
// Stage B: each rank for itself
//   m <- b1 m + (1 - b1) clip g_local ; d = sqrt(v) + eps
//   S <- S + rate (m + decay w d) ; L <- L + rate
//   w <- w - rate (m / d + decay w)
// and every h-th step is a synchronisation point: S, this step's part included,
// is synchronised (kCompressed), and with the weights w0 and the momentum m0 of
// the last such point
//   m <- S / L ; w <- w0 - S / d ; S <- 0 ; L <- 0
// h is 1 at first, doubles after every local_step_scaler steps of stage B, up
// to local_step_clipper; the last of num_steps is such a point in any case. The
// decay is part of S and thereby of the momentum, as in the reference. The
// reference subtracts S / d from the drifted weights; w0 is kept here instead,
// since only then are replicas equal to the bit again.
//
// The gradient of a synchronisation point is in S before anybody knows the clip
// factor. That factor scales the mean gradient since the last point, g^, which
// S / L = a m0 + (1 - a) g^ defines, where a is the mean of b1^i over the i =
// 1, 2, ... steps since then, weighted by their rates: m <- a m0 + (1 - a) clip
// g^. MeanGradientSquaredNorm is that of g^ there, in which the decay is; for h
// = 1 all of this is 1-bit Adam's. In other steps of stage B it is the local
// gradient's.
//
// With parameter groups, `rate` in the rules for w is that of the tensor's
// group, and w <- w0 - scale S / d; S and L are the same for all groups, so
// that what is compressed is, too.
//
// Where a decision ends stage B (SetCompressing), stage A begins anew at the
// next synchronisation point: with the variance as it was and with k = 1, since
// it has to follow other gradients than those that it is of.
//
// Residuals are dropped when stage B begins, as they were of gradients.
// "Every k-th" counts the steps of the run, as the reference does: steps k, 2
// k,
// ..., from 1. Those that are due but skipped are made up for at the next step;
// other counters run over steps that were applied. Dead rows (dead_rows.h) are
// found when v has changed before a compressed step; steps in full precision
// treat them as any other.
#ifndef DELTAPIPE_WORKER_OPTIM_ZERO_ONE_ADAM_H_
#define DELTAPIPE_WORKER_OPTIM_ZERO_ONE_ADAM_H_

#include <algorithm>
#include <vector>

#include "worker/optim/compression_start.h"
#include "worker/optim/dead_rows.h"
#include "worker/optim/flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class ZeroOneAdam : public FlatOptimizer<Real> {
 public:
  using Request = typename FlatOptimizer<Real>::Request;

  ZeroOneAdam(const OptimizerOptions& options, const ParameterLayout& layout);
  Request PrepareEarly(int64_t step, double learning_rate,
                       absl::Span<const Real> weights,
                       absl::Span<Real> gradient) override;
  void TakeGradient(const ElementRange& range) override;
  bool Synchronizes(int64_t step) const override {
    return KindOf(step) != StepKind::kLocal;
  }
  void Wake(absl::Span<const uint8_t> is_woken) override;
  double MeanGradientSquaredNorm() override;
  void Apply(int64_t step, double learning_rate, double clip_factor,
             absl::Span<Real> weights) override;
  void Skip() override;
  bool AreReplicasEqual() const override;
  void SetCompressing(bool on) override { start_.Decide(on); }
  CompressionEvidence Evidence() const override;

 private:
  enum class StepKind {
    kVariance,  // stage A, in full precision
    kGradient,  // stage A, compressed
    kLocal,     // stage B, between synchronisation points
    kSynchronisation,
  };
  /// Positions in schedule_, numbers that a float holds exactly: counts stop at
  /// 2^24.
  enum Schedule : size_t {
    kIsStageB,
    kKnowsDeadRows,
    kOwesOtherQuantity,   // residuals are of stage B's
    kVarianceInterval,    // k
    kVarianceUpdates,     // since k changed
    kStepsSinceVariance,  // since v changed
    kLocalInterval,       // h
    kLocalSteps,          // of stage B, since h changed
    kStepsSinceSync,
    kNumSchedule,
  };
  /// Positions in rates_.
  enum Rates : size_t {
    kRateSum,         // L
    kDecayedRateSum,  // L a
    kNumRates,
  };

  StepKind KindOf(int64_t step) const;
  void Count(Schedule counter) {
    schedule_[counter] = std::min<Real>(schedule_[counter] + 1, 1 << 24);
  }
  /// x = S + this step's part, in `range`.
  void AccumulateUpdate(const ElementRange& range);
  void ApplyVarianceStep(double rate, double clip, absl::Span<Real> weights);
  void ApplyGradientStep(double rate, double clip, absl::Span<Real> weights);
  void ApplyLocalStep(double rate, double clip, absl::Span<Real> weights);
  void ApplySynchronisation(double rate, double clip, absl::Span<Real> weights);
  /// m0.
  const Real* AnchorMomentum() const {
    return AreReplicasEqual() ? momentum_.data() : anchor_momentum_.data();
  }
  /// L and L a, with this step.
  double NextRateSum(double rate) const;
  double NextDecayedRateSum(double rate) const;
  void AdvanceLocalSteps();
  void StateImported() override { rows_.Rebuild(); }

  std::vector<Real> momentum_;
  std::vector<Real> variance_;
  std::vector<Real> accumulated_update_;  // S
  std::vector<Real> anchor_weights_;      // w0
  std::vector<Real> anchor_momentum_;     // m0
  std::vector<Real> schedule_;
  std::vector<Real> rates_;
  CompressionStart<Real> start_;
  DeadRows<Real> rows_;

  // Of the prepared step.
  StepKind kind_ = StepKind::kVariance;
  bool found_dead_rows_ = false;
  double prepared_rate_ = 0;
  absl::Span<const Real> prepared_weights_;
  std::vector<Real> synchronized_;  // x, its mean after the sync
};

extern template class ZeroOneAdam<float>;
extern template class ZeroOneAdam<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_ZERO_ONE_ADAM_H_
