// FeedbackReduce: the two-phase all-reduce with error feedback of a vector that
// travels in buckets, each with a scale, shards and residuals of its own; or
// whole, as one bucket.
//
// Outside, the workers' residual is one vector in the order of the vector
// itself, and the server's is that of one bucket's shard after the other
// (ResidualPlace says where they lie).
#ifndef DELTAPIPE_WORKER_COLLECTIVE_FEEDBACK_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_FEEDBACK_REDUCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/shard_compressor.h"
#include "worker/collective/sync_buckets.h"
#include "worker/collective/two_phase_all_reduce.h"

namespace deltapipe {

class FeedbackReduce {
 public:
  /// `options` are those of a bucket, but for the number of elements and tensor
  /// ids. `exchange` is borrowed.
  FeedbackReduce(std::shared_ptr<ShardCompressor> compressor,
                 TwoPhaseAllReduce::Options options,
                 std::vector<SyncBucket> buckets, GroupExchange* exchange);

  absl::Span<const SyncBucket> buckets() const { return buckets_; }
  /// The all-reduce of one bucket, whose Run takes what is gathered of it.
  TwoPhaseAllReduce* of(size_t bucket) { return parts_[bucket].get(); }
  std::string codec_text() const { return parts_[0]->codec_text(); }

  /// Keeps the residuals of the last Run of every bucket. FAILED_PRECONDITION,
  /// with the residuals of before, if some are not finite.
  absl::Status Commit();

  /// Where the server's residual lies in the vector.
  std::vector<ElementRange> server_ranges() const;
  /// Both empty before the first Run.
  std::vector<float> WorkerResidual() const;
  std::vector<float> ServerResidual() const;
  /// Goes on with these, as of a Commit. INVALID_ARGUMENT for other sizes.
  absl::Status PutResiduals(absl::Span<const float> worker,
                            absl::Span<const float> server);
  /// Between two transactions; the residuals carry over.
  void SetCompressor(std::shared_ptr<ShardCompressor> compressor);

  double worker_residual_norm() const;
  double server_residual_norm() const;

 private:
  bool has_residuals() const;

  const std::vector<SyncBucket> buckets_;
  std::vector<std::unique_ptr<TwoPhaseAllReduce>> parts_;
  int64_t num_elements_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_FEEDBACK_REDUCE_H_
