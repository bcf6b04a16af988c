// Optimizer: one step of SGD, Adam, AdamW, LAMB, 1-bit Adam, 1-bit LAMB or 0/1
// Adam on flat fp32 buffers.
//
// The engine calls, once a step and from one thread:
//
//   SyncRequest request =
//       optimizer->Prepare(step, rate, weights, local_gradient);
//   ... GradientSync replaces request.values by their mean over replicas ...
//   optimizer->Wake(is_woken);            // if rows were excluded
//   double squared = optimizer->MeanGradientSquaredNorm();  // of this stage
//   ... sums over the stages give the global norm, hence clip_factor ...
//   DP_RETURN_IF_ERROR(optimizer->Apply(step, rate, clip_factor, weights));
//   // or, if any rank saw a non-finite value:  optimizer->Skip();
//
// The norm is that of the mean gradient, also in the compressed phase, where
// the gradient is reconstructed from the synchronised momentum; replicas
// therefore clip by the same factor. Every operation is deterministic, with a
// fixed order of summation, so that replicas stay bitwise equal. Only 0/1 Adam
// lets them part for a few steps (AreReplicasEqual).
//
// What is final of a gradient may be synchronised before the rest of it is
// (PrepareEarly, TakeGradient), with the same result, to the bit.
#ifndef DELTAPIPE_WORKER_OPTIM_OPTIMIZER_H_
#define DELTAPIPE_WORKER_OPTIM_OPTIMIZER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/optim/compression_evidence.h"
#include "worker/optim/cut_tensors.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// For compress_after_step: compression begins when SetCompressing says so.
inline constexpr int64_t kCompressByDecision = -1;

struct OptimizerOptions {
  /// sgd | adam | adamw | lamb | onebit_adam | onebit_lamb | zero_one_adam
  std::string kind = "adamw";
  double momentum = 0.9;  // sgd
  /// sgd: this many steps lie between those that share a momentum; 0 or 1, as
  /// the delay of the gradients.
  int momentum_shift = 0;
  /// sgd, adam, adamw: weights are moved ahead of those of the plain update by
  /// so many of their momenta (base/delay_stability.h).
  double look_ahead = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  /// onebit_adam, onebit_lamb: the number of full-precision steps before
  /// compression begins; zero_one_adam: the number of steps in which the
  /// variance is still updated. Or kCompressByDecision.
  int64_t compress_after_step = 0;
  /// LAMB's trust ratio ||w||/||u|| is kept in this range.
  double max_coefficient = 10.0;
  double min_coefficient = 0.01;
  /// 1-bit LAMB (arXiv 2104.06069): EMA of the coefficient, and the range and
  /// rate limit of the factor that scales it while compressed.
  double coefficient_beta = 0.9;
  double factor_max = 4.0;
  double factor_min = 0.5;
  double factor_threshold = 0.1;
  /// 0/1 Adam (arXiv 2202.06009): the interval between updates of the variance
  /// doubles after every variance_update_scaler of them; then the interval
  /// between synchronisations doubles after every local_step_scaler steps, up
  /// to local_step_clipper.
  int64_t variance_update_scaler = 16;
  int64_t local_step_scaler = 32678;  // the reference's default, so spelled
  int64_t local_step_clipper = 16;
  /// The steps of the run: 0/1 Adam synchronises after the last one in any
  /// case, so that the replicas end with equal weights. 0: not known.
  int64_t num_steps = 0;
};

enum class SyncFormat {
  kNone,  // nothing travels in this step
  kPlain,
  kCompressed,
};

struct SyncRequest {
  /// Overwritten by its mean over the replicas. Lives in the optimizer or in
  /// the caller's gradient buffer until Apply or Skip. Empty for kNone.
  absl::Span<float> values;
  SyncFormat format = SyncFormat::kPlain;
  /// What error feedback owes was measured on another quantity than this: it is
  /// dropped before the transaction.
  bool resets_residuals = false;
  /// Rows that never had a gradient, sorted and disjoint, equal on all ranks:
  /// they are not synchronised, come back zero and leave no residual. Lives in
  /// the optimizer until Apply or Skip.
  absl::Span<const ElementRange> excluded = {};
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// INVALID_ARGUMENT names an option that is unknown or out of range. lamb of
  /// a layout that has parts of tensors (LayoutOfRange) needs `shared`.
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      const OptimizerOptions& options, const ParameterLayout& layout,
      const SharedNorms& shared = {});

  /// Takes this replica's gradient (of its mean loss, weighted by the work that
  /// it did), which must live until Apply or Skip, and names what to
  /// synchronise. `step` counts from 0 and grows by one with every Prepare,
  /// also after a Skip. Learning rate and weights are those of the Apply that
  /// follows: what 0/1 Adam sends depends on them.
  virtual SyncRequest Prepare(int64_t step, double learning_rate,
                              absl::Span<const float> weights,
                              absl::Span<float> gradient) = 0;

  /// Prepare of a gradient that is not final yet: the request's values are
  /// there range by range, as TakeGradient is told.
  virtual SyncRequest PrepareEarly(int64_t step, double learning_rate,
                                   absl::Span<const float> weights,
                                   absl::Span<float> gradient) = 0;
  /// After PrepareEarly, once for each element of the layout: the gradient of
  /// `range` is final, and the request's values are there when this returns.
  virtual void TakeGradient(const ElementRange& range) = 0;

  /// Whether the request of `step`, the next one, will not be kNone.
  virtual bool Synchronizes(int64_t step) const = 0;

  /// Between the synchronisation and Apply: one flag for each of
  /// request.excluded, whether some rank had a value other than zero there.
  /// Such rows take part from the next step on.
  virtual void Wake(absl::Span<const uint8_t> is_woken) = 0;

  /// After synchronisation: the squared L2 norm of the mean gradient over this
  /// stage, summed in double precision, segment by segment. After a compressed
  /// synchronisation that gradient is reconstructed from the momentum and
  /// carries the compressor's noise. After a request of kNone it is the local
  /// gradient's, and differs between replicas.
  virtual double MeanGradientSquaredNorm() = 0;

  /// Updates the weights with the mean gradient times `clip_factor`. Errors of
  /// SharedNorms::sum: the optimizer cannot go on.
  virtual absl::Status Apply(int64_t step, double learning_rate,
                             double clip_factor, absl::Span<float> weights) = 0;

  /// Forgets the prepared step: state and weights are as before Prepare.
  virtual void Skip() = 0;

  /// Whether replicas that did the same steps hold equal weights now: false
  /// between two synchronisation points of 0/1 Adam, where hashes, evaluations,
  /// checkpoints and resizing must wait.
  virtual bool AreReplicasEqual() const = 0;

  /// Compression by decision, from the next Prepare on; compress_after_step no
  /// longer counts. Off: full-precision steps go on from the fresh variance
  /// where there is one, else from the frozen one. After the same step on all
  /// ranks; 0/1 Adam obeys at its next synchronisation point. Optimizers
  /// without compression ignore it.
  virtual void SetCompressing(bool on) = 0;

  /// For that decision (CompressionSwitch); of this stage, as of the last step.
  virtual CompressionEvidence Evidence() const = 0;

  /// State for checkpoints, by name ("momentum", "variance", ...).
  virtual std::map<std::string, std::vector<float>> ExportState() const = 0;
  virtual absl::Status ImportState(
      const std::map<std::string, std::vector<float>>& state) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_OPTIMIZER_H_
