// How a flat vector of d elements is cut among n ranks: shards of
// 8 ceil(d / 8n) elements, so that a shard's signs are whole bytes. The last
// shards are short or empty where d is small; nothing is padded.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_SHARDS_H_
#define DELTAPIPE_WORKER_COLLECTIVE_SHARDS_H_

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

struct Shards {
  int64_t num_elements = 0;
  int num_ranks = 1;

  int64_t stride() const {
    const int64_t n = int64_t{8} * num_ranks;
    return (num_elements + n - 1) / n * 8;
  }
  int64_t offset(int rank) const {
    return std::min(stride() * rank, num_elements);
  }
  int64_t size(int rank) const { return offset(rank + 1) - offset(rank); }
  /// The shard that `rank` owns where results stay with owners: the one whose
  /// sum a ring (ring_all_reduce.h) completes there.
  int after_ring(int rank) const { return (rank + 1) % num_ranks; }

  /// The part of `values` (num_elements of them) that is `rank`'s.
  template <typename T>
  absl::Span<T> Of(absl::Span<T> values, int rank) const {
    return values.subspan(static_cast<size_t>(offset(rank)),
                          static_cast<size_t>(size(rank)));
  }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_SHARDS_H_
