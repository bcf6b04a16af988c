// RingAllReduce: the mean of a vector in fp32, in 2 (n - 1) hops around a ring
// of n ranks, 2 (n - 1) / n * 4 d bytes sent by each: the bandwidth bound
// (Patarasuk, Yuan: Bandwidth optimal all-reduce algorithms, JPDC 2009).
//
// In the first n - 1 hops a shard travels and every rank adds its own; then its
// last rank divides, and the result travels on unchanged. Each shard is thus
// summed in one order by one rank after the other: the result is bitwise equal
// on all ranks, and the same in every run. Shards travel in chunks, each passed
// on as soon as it is added, so that a hop does not wait for a whole shard.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_RING_ALL_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_RING_ALL_REDUCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"

namespace deltapipe {

/// Replaces `values` by their sum over the group of `exchange`, divided by
/// `divisor`: the number of ranks for the mean. The transaction has begun; on
/// an error the values hold anything.
absl::Status RingAllReduce(GroupExchange* exchange, int divisor,
                           absl::Span<float> values);

/// What RingAllReduceInParts asks its caller for.
struct RingParts {
  size_t num_parts = 0;
  /// The size of a part, equal on all ranks.
  std::function<int64_t(size_t part)> num_elements;
  /// The values of a part, once they may be read and overwritten, which stay
  /// where they are until `done`. An empty result says not yet, if `may_wait`
  /// is false.
  std::function<absl::StatusOr<std::optional<absl::Span<float>>>(size_t part,
                                                                 bool may_wait)>
      values;
  /// The part's values hold the result and are not needed any more.
  std::function<void(size_t part)> done;
};

/// RingAllReduce of each part by itself, in their order, as one stream: while
/// the last chunks of a part are on their way, the first of the next follow.
/// The bits do not depend on when values come.
absl::Status RingAllReduceInParts(GroupExchange* exchange, int divisor,
                                  const RingParts& parts);

/// Its first n - 1 hops: this rank's shard (Shards::after_ring) of `values`
/// holds the same bits as after RingAllReduce, all else anything.
absl::Status RingReduceScatter(GroupExchange* exchange, int divisor,
                               absl::Span<float> values);
/// Its last n - 1 hops: every rank's own shard of `values` replaces it on all
/// of them, to the bit.
absl::Status RingAllGather(GroupExchange* exchange, absl::Span<float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_RING_ALL_REDUCE_H_
