#include "worker/collective/ring_all_reduce.h"

#include <algorithm>
#include <cstring>
#include <optional>
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
constexpr int64_t kMaxAhead = 16;

struct Chunk {
  GroupExchange::Part part;
  int64_t offset = 0;  // in its part of the stream
  int hop = 0;
  size_t of = 0;  // the part of the stream
  /// Of a chunk to send: how many must have been received before.
  int64_t needs_received = 0;
};

/// Of the 2 (n - 1) hops of an all-reduce.
struct Hops {
  int first = 0;
  int end = 0;
};

/// Appends the chunks of shard (first_shard - hop), hop by hop. Phases count
/// the hops of all parts.
void AddChunks(size_t of, const Shards& shards, const Hops& hops,
               int first_shard, int64_t chunk_elements,
               std::vector<Chunk>* chunks) {
  const int n = shards.num_ranks;
  for (int hop = hops.first; hop < hops.end; ++hop) {
    const int shard = (first_shard - hop + 2 * n) % n;
    const int64_t end = shards.offset(shard + 1);
    uint32_t piece = 0;
    for (int64_t at = shards.offset(shard); at < end; at += chunk_elements) {
      Chunk chunk;
      chunk.part.phase = static_cast<uint32_t>(
          static_cast<int64_t>(of) * 2 * (n - 1) + hop + 1);
      chunk.part.piece = piece++;
      chunk.part.num_elements = std::min(chunk_elements, end - at);
      chunk.offset = at;
      chunk.hop = hop;
      chunk.of = of;
      chunks->push_back(chunk);
    }
  }
}

/// What a rank sends and receives, part after part.
struct Stream {
  std::vector<Chunk> to_send;
  std::vector<Chunk> to_receive;
  std::vector<int64_t> first_received;  // by part, of to_receive
};

Stream MakeStream(const RingParts& parts, const Hops& hops, int rank,
                  int num_ranks, int64_t chunk_elements) {
  Stream stream;
  const int previous = (rank + num_ranks - 1) % num_ranks;
  for (size_t of = 0; of < parts.num_parts; ++of) {
    const Shards shards{parts.num_elements(of), num_ranks};
    const int64_t first = static_cast<int64_t>(stream.to_receive.size());
    const size_t first_sent = stream.to_send.size();
    stream.first_received.push_back(first);
    AddChunks(of, shards, hops, rank, chunk_elements, &stream.to_send);
    AddChunks(of, shards, hops, previous, chunk_elements, &stream.to_receive);
    const int64_t end = static_cast<int64_t>(stream.to_receive.size());
    // The chunks of the first hop are this rank's own; later ones are those
    // that were received, in the same order.
    const int64_t num_own = std::count_if(
        stream.to_send.begin() + static_cast<long>(first_sent),
        stream.to_send.end(),
        [&](const Chunk& chunk) { return chunk.hop == hops.first; });
    const int64_t ahead = std::min(kMaxAhead, num_own);
    for (size_t i = first_sent; i < stream.to_send.size(); ++i) {
      stream.to_send[i].needs_received = std::min(
          end, first + static_cast<int64_t>(i - first_sent) + 1 - ahead);
    }
  }
  return stream;
}

absl::Status TakeChunk(const Chunk& chunk, int num_ranks, float divisor,
                       ByteSpan payload, absl::Span<float> values) {
  const size_t count = static_cast<size_t>(chunk.part.num_elements);
  if (payload.size() != count * sizeof(float)) {
    return absl::InvalidArgumentError(
        absl::StrCat("ring hop ", chunk.hop + 1, ": ", payload.size(),
                     " bytes, expected ", count * sizeof(float)));
  }
  float* const own = values.data();
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

/// The values of the parts of a stream, as far as they are there.
class PartValues {
 public:
  explicit PartValues(const RingParts& parts)
      : parts_(parts), values_(parts.num_parts) {}

  /// Whether the values of a part are there.
  absl::StatusOr<bool> Has(size_t part, bool may_wait) {
    if (values_[part].has_value()) return true;
    DP_ASSIGN_OR_RETURN(values_[part], parts_.values(part, may_wait));
    return values_[part].has_value();
  }
  absl::Span<float> Of(const Chunk& chunk) const {
    return values_[chunk.of]->subspan(
        static_cast<size_t>(chunk.offset),
        static_cast<size_t>(chunk.part.num_elements));
  }
  /// Nothing before these is needed any more.
  void EndBefore(size_t part) {
    while (num_done_ < part) parts_.done(num_done_++);
  }

 private:
  const RingParts& parts_;
  std::vector<std::optional<absl::Span<float>>> values_;
  size_t num_done_ = 0;
};

absl::Status RunHops(GroupExchange* exchange, const Hops& hops, int divisor,
                     const RingParts& parts) {
  const RankGroup& group = *exchange->group();
  const int n = group.size();
  const int64_t chunk_elements = std::max<int64_t>(
      1, std::min(kChunkBytes, exchange->max_message_bytes()) / 4);
  const int next = (group.rank() + 1) % n;
  const int previous = (group.rank() + n - 1) % n;
  const Stream stream =
      MakeStream(parts, hops, group.rank(), n, chunk_elements);
  const std::vector<Chunk>& to_send = stream.to_send;
  const std::vector<Chunk>& to_receive = stream.to_receive;

  PartValues values(parts);
  size_t sent = 0;
  size_t received = 0;
  while (sent < to_send.size() || received < to_receive.size()) {
    while (sent < to_send.size() &&
           static_cast<int64_t>(received) >= to_send[sent].needs_received) {
      const Chunk& chunk = to_send[sent];
      // While chunks of an earlier part are to come, they are taken first.
      const bool may_wait =
          static_cast<int64_t>(received) >= stream.first_received[chunk.of];
      DP_ASSIGN_OR_RETURN(const bool has, values.Has(chunk.of, may_wait));
      if (!has) break;
      const absl::Span<const float> own = values.Of(chunk);
      DP_RETURN_IF_ERROR(
          exchange->Send(next, chunk.part,
                         ByteSpan(reinterpret_cast<const uint8_t*>(own.data()),
                                  own.size() * sizeof(float))));
      ++sent;
    }
    if (received == to_receive.size()) continue;
    const Chunk& chunk = to_receive[received++];
    DP_RETURN_IF_ERROR(values.Has(chunk.of, /*may_wait=*/true).status());
    DP_ASSIGN_OR_RETURN(const Frame frame,
                        exchange->Receive(previous, chunk.part));
    DP_RETURN_IF_ERROR(TakeChunk(chunk, n, static_cast<float>(divisor),
                                 frame.payload(), values.Of(chunk)));
    const size_t sending =
        sent < to_send.size() ? to_send[sent].of : parts.num_parts;
    const size_t receiving = received < to_receive.size()
                                 ? to_receive[received].of
                                 : parts.num_parts;
    values.EndBefore(std::min(sending, receiving));
  }
  // Parts that nothing was sent of must be there all the same.
  for (size_t part = 0; part < parts.num_parts; ++part) {
    DP_RETURN_IF_ERROR(values.Has(part, /*may_wait=*/true).status());
  }
  values.EndBefore(parts.num_parts);
  return absl::OkStatus();
}

/// A vector that is there.
RingParts OnePart(absl::Span<float> values) {
  RingParts parts;
  parts.num_parts = 1;
  parts.num_elements = [values](size_t) {
    return static_cast<int64_t>(values.size());
  };
  parts.values = [values](size_t, bool) { return values; };
  parts.done = [](size_t) {};
  return parts;
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
  return RunHops(exchange, {0, 2 * (n - 1)}, divisor, OnePart(values));
}

absl::Status RingAllReduceInParts(GroupExchange* exchange, int divisor,
                                  const RingParts& parts) {
  const int n = exchange->group()->size();
  return RunHops(exchange, {0, 2 * (n - 1)}, divisor, parts);
}

absl::Status RingReduceScatter(GroupExchange* exchange, int divisor,
                               absl::Span<float> values) {
  const int n = exchange->group()->size();
  if (n == 1) DivideAll(divisor, values);
  return RunHops(exchange, {0, n - 1}, divisor, OnePart(values));
}

absl::Status RingAllGather(GroupExchange* exchange, absl::Span<float> values) {
  const int n = exchange->group()->size();
  return RunHops(exchange, {n - 1, 2 * (n - 1)}, 1, OnePart(values));
}

}  // namespace deltapipe
