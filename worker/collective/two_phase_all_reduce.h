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
// Ranges that are excluded are sent as zeros, come back as zeros and leave no
// residual; they do not count in a scale. A value that a rank has there stays
// in its residual, and all ranks learn that there is one: each message of a
// shard ends with one bit for each such range (excluded_ranges.h).
//
// A transaction leaves the residuals of before in place until Commit, so that
// Abort (or a transaction that failed) has nothing to restore.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_TWO_PHASE_ALL_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_TWO_PHASE_ALL_REDUCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/collective/excluded_ranges.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/shard_compressor.h"
#include "worker/collective/shards.h"

namespace deltapipe {

class TwoPhaseAllReduce {
 public:
  struct Options {
    bool has_feedback = true;
    /// Without feedback a Run may have any number of them.
    int64_t num_elements = 0;
    /// Of stochastic codecs: of the job, and a number that no other rank of the
    /// stage has.
    uint64_t seed = 0;
    uint32_t slot = 0;
    /// Likewise: how many of them the vector's earlier parts took, each
    /// kNumTensorIds a rank.
    uint32_t first_tensor_id = 0;
    /// Whether WriteResult is called.
    bool keeps_messages = false;
  };

  static constexpr uint32_t kNumTensorIds = 2;

  /// `exchange` is borrowed. The compressor may be that of other objects that
  /// the same thread uses.
  TwoPhaseAllReduce(std::shared_ptr<ShardCompressor> compressor,
                    const Options& options, GroupExchange* exchange);

  std::string codec_text() const { return compressor_->text(); }

  /// Replaces `values` by the mean; on an error they hold anything. `excluded`
  /// as in SyncRequest. With `drops_residuals` nothing is added to the values.
  absl::Status Run(uint32_t step, absl::Span<float> values,
                   absl::Span<const ElementRange> excluded,
                   bool drops_residuals);
  /// For each range excluded from the last Run, whether some rank had a value
  /// there.
  absl::Span<const uint8_t> woken() const { return woken_; }

  /// What the last Run received in its second phase, and sent: the whole result
  /// in packed form, for ranks that took no part.
  void WriteResult(std::vector<uint8_t>* packed) const;
  /// Decodes what WriteResult wrote, of a vector of another group with as many
  /// ranks and with these codecs. `flags`, one for each of part.ranges, get
  /// what it knows of them. INVALID_ARGUMENT for a message that cannot be.
  absl::Status ReadResult(ByteSpan packed, const ExcludedPart& part,
                          absl::Span<float> values, absl::Span<uint8_t> flags);
  /// The most bytes that WriteResult leaves for a vector of `num_elements` with
  /// `num_excluded` ranges.
  int64_t MaxResultBytes(int64_t num_elements, size_t num_excluded) const;

  /// FAILED_PRECONDITION if the residuals of the last Run are not finite.
  absl::Status CheckCommit() const;
  /// Keeps them, if CheckCommit has nothing against it.
  void Commit();

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
  void SetCompressor(std::shared_ptr<ShardCompressor> compressor) {
    compressor_ = std::move(compressor);
  }

  /// Of the vector.
  ElementRange own_shard() const {
    return {shards_.offset(rank_), shards_.offset(rank_ + 1)};
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
  ExcludedPart ShardPart(int rank) const {
    return PartOf(excluded_, shards_.offset(rank), shards_.offset(rank + 1));
  }
  /// Encodes a shard; its message ends with the flags of `part`.
  absl::StatusOr<ByteSpan> Encode(uint32_t step, uint32_t tensor_id,
                                  absl::Span<float> shard,
                                  const ExcludedPart& part,
                                  absl::Span<const uint8_t> flags,
                                  std::vector<uint8_t>* message);
  absl::Status DecodeShard(ByteSpan message, const ExcludedPart& part,
                           absl::Span<float> values, absl::Span<uint8_t> flags);
  /// Takes the values of excluded ranges out of x, where they are not zero.
  void SetAside(absl::Span<float> x);

  std::shared_ptr<ShardCompressor> compressor_;
  const Options options_;
  Shards shards_;
  const int rank_;
  GroupExchange* const exchange_;
  Residual worker_;
  Residual server_;
  std::vector<std::vector<uint8_t>> messages_;  // one for each rank
  std::vector<std::vector<uint8_t>> results_;   // of the second phase, by shard

  // Of the present Run.
  absl::Span<const ElementRange> excluded_;
  bool drops_residuals_ = false;
  struct Aside {
    size_t range = 0;
    std::vector<float> values;
  };
  std::vector<Aside> aside_;
  std::vector<uint8_t> own_flags_;
  std::vector<uint8_t> server_flags_;
  std::vector<uint8_t> woken_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_TWO_PHASE_ALL_REDUCE_H_
