// TiedPart: the parameters of a stage that other stages hold, too
// (ParameterLayout::num_tied), with an optimizer and a synchronisation of their
// own.
//
// The gradient of a tied tensor is the sum of what its uses in several stages
// contribute, averaged over the replicas. All replicas of all stages that hold
// it (the owners) are one group, whose mean is that if each brings its gradient
// times the number of owners. The group's ranks begin with the same weights and
// apply the same bits, and so stay equal without weights travelling.
//
//   DP_ASSIGN_OR_RETURN(auto tied, TiedPart::Create(...));
//   DP_ASSIGN_OR_RETURN(SyncFormat format,
//                       tied->Begin(step, rate, weights, gradients));
//   DP_RETURN_IF_ERROR(tied->Wait(deadline));
//   double squared = tied->CountedSquaredNorm();  // once over the owners
//   DP_RETURN_IF_ERROR(tied->Apply(step, rate, clip_factor, weights));
//   // or: DP_RETURN_IF_ERROR(tied->Skip());
//
// Spans of weights and gradients are the whole stage's. One thread at a time,
// but for counters().
#ifndef DELTAPIPE_WORKER_ENGINE_TIED_PART_H_
#define DELTAPIPE_WORKER_ENGINE_TIED_PART_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/rank_group.h"
#include "worker/optim/compression_evidence.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"
#include "worker/optim/sharded_state.h"

namespace deltapipe {

struct TiedPartOptions {
  /// Of the whole stage, with its parameter groups.
  ParameterLayout layout;
  int stage = 0;
  int num_replicas = 1;
  OptimizerOptions optimizer;
  GradientSyncOptions sync;  // without nodes or shards
};

/// The rank in the group of tied_stages[owner]'s `replica`.
inline int TiedRank(int owner, int replica, int num_replicas) {
  return owner * num_replicas + replica;
}

class TiedPart {
 public:
  /// `group` is borrowed; it holds the owners' replicas in the order of
  /// TiedRank. INVALID_ARGUMENT if `stage` is not among the owners, the group
  /// has another size, or as GradientSync and Optimizer.
  static absl::StatusOr<std::unique_ptr<TiedPart>> Create(
      const TiedPartOptions& options, RankGroup* group);

  /// Exchanges checksums. DATA_LOSS names the first tensor that is not the same
  /// everywhere, and two workers that differ; `when` says since when, such as
  /// "after step 7". All ranks come to the same verdict.
  absl::Status CheckEqual(uint32_t step, uint32_t phase,
                          const std::string& when,
                          absl::Span<const float> weights, Deadline deadline);

  /// Multiplies the tied part of `gradients` by the number of owners and starts
  /// to average it.
  absl::StatusOr<SyncFormat> Begin(int64_t step, double learning_rate,
                                   absl::Span<const float> weights,
                                   absl::Span<float> gradients);
  absl::Status Wait(Deadline deadline);

  /// Of the mean gradient, at the first owner; 0 at the others, so that the sum
  /// over the stages counts it once. Between Wait and Apply.
  double CountedSquaredNorm();
  /// Likewise of Optimizer::Evidence.
  CompressionEvidence CountedEvidence() const;

  absl::Status Apply(int64_t step, double learning_rate, double clip_factor,
                     absl::Span<float> weights);
  absl::Status Skip();

  // Between two steps:

  void SetCompressing(bool on) { optimizer_->SetCompressing(on); }
  absl::Status SetCodecs(const std::string& compressed_codec,
                         const std::string& plain_codec) {
    return sync_->SetCodecs(compressed_codec, plain_codec);
  }
  /// Adds the optimizer's state to that of the stage's own part, under names
  /// that begin with kTiedPrefix.
  void AddState(OptimizerState* state) const;
  /// Takes it out again.
  absl::Status TakeState(OptimizerState* state);
  absl::StatusOr<SyncResiduals> TakeResiduals() const {
    return sync_->TakeResiduals();
  }
  ResidualPlace residual_place() const { return sync_->residual_place(); }
  absl::Status PutResiduals(const SyncResiduals& residuals) {
    return sync_->PutResiduals(residuals);
  }

  GradientSyncCounters counters() const { return sync_->counters(); }
  int rank() const { return group_->rank(); }
  int num_ranks() const { return group_->size(); }
  int64_t num_elements() const { return layout_.num_elements; }

 private:
  TiedPart(const TiedPartOptions& options, RankGroup* group);
  template <typename T>
  absl::Span<T> Cut(absl::Span<T> of_stage) const {
    return of_stage.subspan(static_cast<size_t>(begin_));
  }
  bool is_first_owner() const { return group_->rank() < num_replicas_; }
  /// "stage 3, replica 1".
  std::string NameOf(size_t rank) const;

  const ParameterLayout layout_;  // of this part alone
  const int64_t begin_;           // of it, in the stage's
  const std::vector<int> stages_;
  const int num_replicas_;
  RankGroup* const group_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<GradientSync> sync_;
  bool is_synchronised_ = false;  // this step, in some form
  bool has_excluded_ = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_TIED_PART_H_
