// TwoPhaseAllReduce: the mean of a vector over the ranks in two exchanges, each
// compressed: every rank sends shard j to rank j, which averages; then every
// rank sends its averaged shard to all.
//
// With error feedback, what a compression loses is kept and added before the
// next one: a residual of the whole vector as a worker, one of the own shard as
// a server. Without, messages are rounded once in each phase, however many
// ranks there are. Every rank, the owner of a shard too, takes what it decodes,
// so that the result is bitwise equal on all of them.
//
// A transaction leaves the residuals of before in place until Commit, so that
// Abort (or a transaction that failed) has nothing to restore.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_TWO_PHASE_ALL_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_TWO_PHASE_ALL_REDUCE_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/shard_compressor.h"
#include "worker/collective/shards.h"

namespace deltapipe {

class TwoPhaseAllReduce {
 public:
  /// `exchange` is borrowed.
  TwoPhaseAllReduce(std::unique_ptr<ShardCompressor> compressor,
                    bool has_feedback, int64_t num_elements, uint64_t seed,
                    GroupExchange* exchange);

  std::string codec_text() const { return compressor_->text(); }

  /// Replaces `values` by the mean; on an error they hold anything.
  absl::Status Run(uint32_t step, absl::Span<float> values);

  /// Keeps the residuals of the last Run. FAILED_PRECONDITION, with the
  /// residuals of before, if they are not finite.
  absl::Status Commit();

  /// What the next Run adds; empty before the first.
  const std::vector<float>& worker_residual() const {
    return worker_.committed;
  }
  const std::vector<float>& server_residual() const {
    return server_.committed;
  }
  /// Goes on with these, as of a Commit. INVALID_ARGUMENT for other sizes.
  absl::Status PutResiduals(absl::Span<const float> worker,
                            absl::Span<const float> server);
  /// Between two Runs; the residuals carry over.
  void SetCompressor(std::unique_ptr<ShardCompressor> compressor) {
    compressor_ = std::move(compressor);
  }

  double worker_residual_norm() const { return worker_.norm; }
  double server_residual_norm() const { return server_.norm; }

 private:
  struct Residual {
    std::vector<float> committed;
    double norm = 0;
    std::vector<float> pending;
    double pending_norm = 0;
    void Commit();
  };

  /// Before the first Run: many jobs never compress.
  void Allocate();
  absl::Status SendToServers(uint32_t step, absl::Span<const float> values);
  absl::Status SendToWorkers(uint32_t step, absl::Span<float> values);
  absl::StatusOr<ByteSpan> Encode(uint32_t step, uint32_t tensor_id,
                                  absl::Span<float> shard,
                                  std::vector<uint8_t>* message);

  std::unique_ptr<ShardCompressor> compressor_;
  const bool has_feedback_;
  const uint64_t seed_;
  const Shards shards_;
  const int rank_;
  GroupExchange* const exchange_;
  Residual worker_;
  Residual server_;
  std::vector<std::vector<uint8_t>> messages_;  // one for each rank
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_TWO_PHASE_ALL_REDUCE_H_
