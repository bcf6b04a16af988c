// FlatOptimizer<Real>: what the optimizers have in common, with the arithmetic
// as a parameter: float in training, double where tests compare with a
// transcription of the paper.
//
// The calls are those of optimizer.h, in the same order; that header's adapter
// checks sizes and order, the optimizers here rely on them. An optimizer
// changes its state in Apply only, so that Skip has nothing to restore; what
// Prepare computes it keeps beside the state.
#ifndef DELTAPIPE_WORKER_OPTIM_FLAT_OPTIMIZER_H_
#define DELTAPIPE_WORKER_OPTIM_FLAT_OPTIMIZER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// Passes over a segment work in blocks of this many elements, so that what one
/// loop leaves for the next stays in the first-level cache.
inline constexpr int64_t kOptimizerBlock = 512;

template <typename Real>
class FlatOptimizer {
 public:
  struct Request {
    absl::Span<Real> values;
    SyncFormat format = SyncFormat::kPlain;
    bool resets_residuals = false;
    absl::Span<const ElementRange> excluded = {};
  };
  using State = std::map<std::string, std::vector<Real>>;

  virtual ~FlatOptimizer() = default;

  Request Prepare(int64_t step, double learning_rate,
                  absl::Span<const Real> weights, absl::Span<Real> gradient);
  /// Here the gradient itself is what is synchronised; who overrides one of
  /// these overrides both.
  virtual Request PrepareEarly(int64_t step, double learning_rate,
                               absl::Span<const Real> weights,
                               absl::Span<Real> gradient);
  virtual void TakeGradient(const ElementRange& range) {}
  virtual bool Synchronizes(int64_t step) const { return true; }
  virtual void Wake(absl::Span<const uint8_t> is_woken) {}
  virtual double MeanGradientSquaredNorm();
  virtual void Apply(int64_t step, double learning_rate, double clip_factor,
                     absl::Span<Real> weights) = 0;
  /// Of the last Apply: an error of the exchange that it needs (SharedNorms),
  /// after which the weights are as before and the state is not.
  const absl::Status& apply_status() const { return apply_status_; }
  virtual void Skip() {}
  virtual bool AreReplicasEqual() const { return true; }
  virtual void SetCompressing(bool on) {}
  virtual CompressionEvidence Evidence() const { return {}; }

  State ExportState() const;
  /// Takes exactly what ExportState gave. INVALID_ARGUMENT names what is
  /// missing, unknown or of another size; then nothing has changed.
  absl::Status ImportState(const State& state);

  const ParameterLayout& layout() const { return layout_; }

 protected:
  FlatOptimizer(const OptimizerOptions& options, const ParameterLayout& layout)
      : options_(options), layout_(layout) {}

  /// Names a part of the state: once, in the constructor; `values` is a member
  /// of the optimizer whose size stays as it is.
  void AddState(const std::string& name, std::vector<Real>* values) {
    state_.emplace_back(name, values);
  }

  /// Called when the members named in AddState have been replaced.
  virtual void StateImported() {}

  /// Evidence of what ||v||_1 says, `variance` being v.
  static CompressionEvidence EvidenceOfVariance(
      absl::Span<const Real> variance);

  /// The weight decay of a segment.
  double WeightDecay(const ParameterSegment& segment) const {
    return segment.weight_decay.value_or(
        segment.has_weight_decay ? options_.weight_decay : 0.0);
  }

  const OptimizerOptions options_;
  const ParameterLayout layout_;
  absl::Status apply_status_;
  absl::Span<Real> gradient_;  // as Prepare got it; the mean after the sync

 private:
  std::vector<std::pair<std::string, std::vector<Real>*>> state_;
};

extern template class FlatOptimizer<float>;
extern template class FlatOptimizer<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_FLAT_OPTIMIZER_H_
