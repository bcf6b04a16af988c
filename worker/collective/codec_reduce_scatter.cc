#include "worker/collective/codec_reduce_scatter.h"

#include <algorithm>
#include <utility>

#include "base/philox.h"
#include "base/status_macros.h"
#include "worker/collective/shards.h"

namespace deltapipe {
namespace {

constexpr uint32_t kToOwners = 1;
// RandomKey::direction: gradients.
constexpr uint32_t kGradientDirection = 2;

}  // namespace

CodecReduceScatter::CodecReduceScatter(
    std::unique_ptr<ShardCompressor> compressor, uint64_t seed,
    GroupExchange* exchange)
    : compressor_(std::move(compressor)),
      seed_(seed),
      exchange_(exchange),
      messages_(static_cast<size_t>(exchange->group()->size())) {}

absl::StatusOr<ByteSpan> CodecReduceScatter::Encode(uint32_t step,
                                                    int shard_index,
                                                    absl::Span<float> shard) {
  RandomKey key;
  key.seed = seed_;
  key.tensor_id = static_cast<uint32_t>(shard_index);
  key.step = step;
  key.slot = static_cast<uint32_t>(exchange_->group()->rank());
  key.direction = kGradientDirection;
  std::vector<uint8_t>& message = messages_[static_cast<size_t>(shard_index)];
  message.resize(static_cast<size_t>(
      compressor_->MaxMessageBytes(static_cast<int64_t>(shard.size()))));
  DP_ASSIGN_OR_RETURN(const int64_t size,
                      compressor_->Encode(shard, key, absl::MakeSpan(message)));
  message.resize(static_cast<size_t>(size));
  return ByteSpan(message);
}

absl::Status CodecReduceScatter::Run(uint32_t step, absl::Span<float> values) {
  const int num_ranks = exchange_->group()->size();
  const int rank = exchange_->group()->rank();
  const Shards shards{static_cast<int64_t>(values.size()), num_ranks};
  compressor_->AddResidual(values, {}, shards.num_elements);

  std::vector<GroupExchange::Outgoing> outgoing;
  for (int offset = 1; offset < num_ranks; ++offset) {
    const int peer = (rank + offset) % num_ranks;
    const int shard = shards.after_ring(peer);
    if (shards.size(shard) == 0) continue;
    outgoing.push_back({peer, shards.size(shard), [=, this_step = step] {
                          return Encode(this_step, shard,
                                        shards.Of(values, shard));
                        }});
  }
  const int mine = shards.after_ring(rank);
  const absl::Span<float> own = shards.Of(values, mine);
  std::vector<int> sources;
  for (int other = 0; other < num_ranks && !own.empty(); ++other) {
    if (other != rank) sources.push_back(other);
  }
  mean_.assign(own.size(), 0.0f);
  // Ranks are added in their order, this one in its place.
  const auto add_own = [&] {
    const float divisor = static_cast<float>(num_ranks);
    for (size_t i = 0; i < own.size(); ++i) mean_[i] += own[i] / divisor;
  };
  if (rank == 0) add_own();
  DP_RETURN_IF_ERROR(
      exchange_->Exchange(kToOwners, outgoing, sources,
                          compressor_->MaxMessageBytes(shards.size(mine)),
                          [&](int peer, ByteSpan message) {
                            DP_RETURN_IF_ERROR(compressor_->AccumulateMean(
                                message, num_ranks, absl::MakeSpan(mean_)));
                            if (peer + 1 == rank) add_own();
                            return absl::OkStatus();
                          }));
  std::copy(mean_.begin(), mean_.end(), own.begin());
  return absl::OkStatus();
}

}  // namespace deltapipe
