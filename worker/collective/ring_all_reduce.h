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

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"

namespace deltapipe {

/// Replaces `values` by their sum over the group of `exchange`, divided by
/// `divisor`: the number of ranks for the mean. The transaction has begun; on
/// an error the values hold anything.
absl::Status RingAllReduce(GroupExchange* exchange, int divisor,
                           absl::Span<float> values);

/// Its first n - 1 hops: this rank's shard (Shards::after_ring) of `values`
/// holds the same bits as after RingAllReduce, all else anything.
absl::Status RingReduceScatter(GroupExchange* exchange, int divisor,
                               absl::Span<float> values);
/// Its last n - 1 hops: every rank's own shard of `values` replaces it on all
/// of them, to the bit.
absl::Status RingAllGather(GroupExchange* exchange, absl::Span<float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_RING_ALL_REDUCE_H_
