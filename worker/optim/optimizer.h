// Optimizer: one step of SGD, AdamW, LAMB or 1-bit LAMB on flat fp32 buffers.
//
// The engine calls, once a step and from one thread:
//
//   SyncRequest request = optimizer->Prepare(step, local_gradient);
//   ... GradientSync replaces request.values by their mean over replicas ...
//   double squared = optimizer->MeanGradientSquaredNorm();  // of this stage
//   ... sums over the stages give the global norm, hence clip_factor ...
//   DP_RETURN_IF_ERROR(optimizer->Apply(step, rate, clip_factor, weights));
//   // or, if any rank saw a non-finite value:  optimizer->Skip();
//
// The norm is that of the mean gradient, also in the compressed phase, where
// the gradient is reconstructed from the synchronised momentum; replicas
// therefore clip by the same factor. Every operation is deterministic, with a
// fixed order of summation, so that replicas stay bitwise equal.
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
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

struct OptimizerOptions {
  std::string kind = "adamw";  // sgd | adamw | lamb | onebit_lamb
  double momentum = 0.9;       // sgd
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  /// onebit_lamb: the number of steps before compression begins.
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
};

enum class SyncFormat { kPlain, kCompressed };

struct SyncRequest {
  /// Overwritten by its mean over the replicas. Lives in the optimizer or in
  /// the caller's gradient buffer until Apply or Skip.
  absl::Span<float> values;
  SyncFormat format = SyncFormat::kPlain;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// INVALID_ARGUMENT names an option that is unknown or out of range.
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(
      const OptimizerOptions& options, const ParameterLayout& layout);

  /// Takes this replica's gradient (of its mean loss), which must live until
  /// Apply or Skip, and names what to synchronise. `step` counts from 0 and
  /// grows by one with every Prepare, also after a Skip.
  virtual SyncRequest Prepare(int64_t step, absl::Span<float> gradient) = 0;

  /// After synchronisation: the squared L2 norm of the mean gradient over this
  /// stage, summed in double precision, segment by segment. After a compressed
  /// synchronisation that gradient is reconstructed from the momentum and
  /// carries the compressor's noise.
  virtual double MeanGradientSquaredNorm() = 0;

  /// Updates the weights with the mean gradient times `clip_factor`.
  virtual absl::Status Apply(int64_t step, double learning_rate,
                             double clip_factor, absl::Span<float> weights) = 0;

  /// Forgets the prepared step: state and weights are as before Prepare.
  virtual void Skip() = 0;

  /// State for checkpoints, by name ("momentum", "variance", ...).
  virtual std::map<std::string, std::vector<float>> ExportState() const = 0;
  virtual absl::Status ImportState(
      const std::map<std::string, std::vector<float>>& state) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_OPTIMIZER_H_
