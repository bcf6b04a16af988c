#include "worker/collective/ring_all_reduce.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/shards.h"

namespace deltapipe {
namespace {

// Small enough to overlap the hops of small models, large enough that a frame's
// header and a wake-up do not count.
constexpr int64_t kChunkBytes = int64_t{256} << 10;
// How far a rank may send ahead of what it has received, in chunks. It bounds
// what waits in channels, so that ranks that all send cannot block each other.
constexpr size_t kMaxAhead = 16;

struct Chunk {
  GroupExchange::Part part;
  int64_t offset = 0;
  int hop = 0;
};

/// Of the 2 (n - 1) hops of an all-reduce.
struct Hops {
  int first = 0;
  int end = 0;
};

/// The chunks of shard (first_shard - hop), hop by hop.
std::vector<Chunk> ChunksFrom(const Shards& shards, const Hops& hops,
                              int first_shard, int64_t chunk_elements) {
  std::vector<Chunk> chunks;
  const int n = shards.num_ranks;
  for (int hop = hops.first; hop < hops.end; ++hop) {
    const int shard = (first_shard - hop + 2 * n) % n;
    const int64_t end = shards.offset(shard + 1);
    uint32_t piece = 0;
    for (int64_t at = shards.offset(shard); at < end; at += chunk_elements) {
      Chunk chunk;
      chunk.part.phase = static_cast<uint32_t>(hop + 1);
      chunk.part.piece = piece++;
      chunk.part.num_elements = std::min(chunk_elements, end - at);
      chunk.offset = at;
      chunk.hop = hop;
      chunks.push_back(chunk);
    }
  }
  return chunks;
}

absl::Status TakeChunk(const Chunk& chunk, int num_ranks, float divisor,
                       ByteSpan payload, absl::Span<float> values) {
  const size_t count = static_cast<size_t>(chunk.part.num_elements);
  if (payload.size() != count * sizeof(float)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring hop ", chunk.hop + 1, ": ", payload.size(),
                     " bytes, expected ", count * sizeof(float)));
  }
  float* const own = values.data() + chunk.offset;
  if (chunk.hop >= num_ranks - 1) {
    std::memcpy(own, payload.data(), payload.size());
    return absl::OkStatus();
  }
  // Read through memcpy: a payload may start at any address.
  for (size_t i = 0; i < count; ++i) {
    float arrived;
    std::memcpy(&arrived, payload.data() + i * sizeof(float), sizeof(float));
    own[i] += arrived;
  }
  if (chunk.hop == num_ranks - 2) {  // the sum is complete
    for (size_t i = 0; i < count; ++i) own[i] /= divisor;
  }
  return absl::OkStatus();
}

absl::Status RunHops(GroupExchange* exchange, const Hops& hops, int divisor,
                     absl::Span<float> values) {
  const RankGroup& group = *exchange->group();
  const int n = group.size();
  const Shards shards{static_cast<int64_t>(values.size()), n};
  const int64_t chunk_elements = std::max<int64_t>(
      1, std::min(kChunkBytes, exchange->max_message_bytes()) / 4);
  const int next = (group.rank() + 1) % n;
  const int previous = (group.rank() + n - 1) % n;
  const std::vector<Chunk> to_send =
      ChunksFrom(shards, hops, group.rank(), chunk_elements);
  const std::vector<Chunk> to_receive =
      ChunksFrom(shards, hops, previous, chunk_elements);
  // The chunks of the first hop are this rank's own; later ones are those that
  // were received, in the same order.
  const size_t num_own = static_cast<size_t>(std::count_if(
      to_send.begin(), to_send.end(),
      [&](const Chunk& chunk) { return chunk.hop == hops.first; }));

  size_t sent = 0;
  size_t received = 0;
  while (sent < to_send.size() || received < to_receive.size()) {
    while (sent < to_send.size() &&
           (received == to_receive.size() ||
            sent < received + std::min(kMaxAhead, num_own))) {
      const Chunk& chunk = to_send[sent++];
      DP_RETURN_IF_ERROR(exchange->Send(
          next, chunk.part,
          ByteSpan(
              reinterpret_cast<const uint8_t*>(values.data() + chunk.offset),
              static_cast<size_t>(chunk.part.num_elements) * sizeof(float))));
    }
    if (received == to_receive.size()) continue;
    const Chunk& chunk = to_receive[received++];
    DP_ASSIGN_OR_RETURN(const Frame frame,
                        exchange->Receive(previous, chunk.part));
    DP_RETURN_IF_ERROR(TakeChunk(chunk, n, static_cast<float>(divisor),
                                 frame.payload(), values));
  }
  return absl::OkStatus();
}

void DivideAll(int divisor, absl::Span<float> values) {
  if (divisor == 1) return;
  for (float& value : values) value /= static_cast<float>(divisor);
}

}  // namespace

absl::Status RingAllReduce(GroupExchange* exchange, int divisor,
                           absl::Span<float> values) {
  const int n = exchange->group()->size();
  if (n == 1) DivideAll(divisor, values);
  return RunHops(exchange, {0, 2 * (n - 1)}, divisor, values);
}

absl::Status RingReduceScatter(GroupExchange* exchange, int divisor,
                               absl::Span<float> values) {
  const int n = exchange->group()->size();
  if (n == 1) DivideAll(divisor, values);
  return RunHops(exchange, {0, n - 1}, divisor, values);
}

absl::Status RingAllGather(GroupExchange* exchange, absl::Span<float> values) {
  const int n = exchange->group()->size();
  return RunHops(exchange, {n - 1, 2 * (n - 1)}, 1, values);
}

}  // namespace deltapipe
