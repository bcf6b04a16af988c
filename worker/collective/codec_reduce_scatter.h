// CodecReduceScatter: the first half of a two-phase all-reduce without
// feedback: every rank sends shards through a codec to their owners, which
// average them. (n - 1) / n of a compressed vector sent by each of n ranks.
//
// The owner of a shard adds its own part as it is, so that each addend is
// rounded once at most, and keeps the mean in fp32.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_CODEC_REDUCE_SCATTER_H_
#define DELTAPIPE_WORKER_COLLECTIVE_CODEC_REDUCE_SCATTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/shard_compressor.h"

namespace deltapipe {

class CodecReduceScatter {
 public:
  /// `exchange` is borrowed; `seed` and the rank are of stochastic codecs.
  CodecReduceScatter(std::unique_ptr<ShardCompressor> compressor, uint64_t seed,
                     GroupExchange* exchange);

  std::string codec_text() const { return compressor_->text(); }

  /// Leaves in this rank's shard (Shards::after_ring) of `values` the mean over
  /// the ranks, summed in their order; all else holds anything. The transaction
  /// has begun.
  absl::Status Run(uint32_t step, absl::Span<float> values);

 private:
  absl::StatusOr<ByteSpan> Encode(uint32_t step, int shard_index,
                                  absl::Span<float> shard);

  const std::unique_ptr<ShardCompressor> compressor_;
  const uint64_t seed_;
  GroupExchange* const exchange_;
  std::vector<std::vector<uint8_t>> messages_;  // by shard
  std::vector<float> mean_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_CODEC_REDUCE_SCATTER_H_
