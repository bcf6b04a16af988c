// The ranges of a request that are left out of a synchronisation
// (SyncRequest::excluded), and how messages tell that a rank had a value there.
//
// A message of a shard ends with one bit for each range that overlaps the
// shard, in the ranges' order, lowest bit first: set if some rank had a value
// other than zero in that part. Without such ranges it has no such end.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_EXCLUDED_RANGES_H_
#define DELTAPIPE_WORKER_COLLECTIVE_EXCLUDED_RANGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/collective/sync_buckets.h"
#include "worker/optim/optimizer.h"

namespace deltapipe {

/// Of ranges[first] to ranges[last - 1], the parts that lie in [begin, end) of
/// the vector.
struct ExcludedPart {
  absl::Span<const ElementRange> ranges;
  int64_t begin = 0;
  int64_t end = 0;
  size_t first = 0;
  size_t last = 0;

  size_t size() const { return last - first; }
  /// Of range first + i, relative to `begin`.
  ElementRange range(size_t i) const;
  int64_t num_elements() const;
  int64_t num_wake_bytes() const {
    return static_cast<int64_t>((size() + 7) / 8);
  }
};

/// `ranges` are sorted and disjoint.
ExcludedPart PartOf(absl::Span<const ElementRange> ranges, int64_t begin,
                    int64_t end);

/// The parts of excluded ranges that lie in a bucket.
struct ExcludedInBucket {
  std::vector<ElementRange> ranges;  // of the bucket, sorted and disjoint
  std::vector<size_t> origins;       // of each, its place in the request
};

/// `ranges` are sorted and disjoint.
ExcludedInBucket ExcludedIn(const SyncBucket& bucket,
                            absl::Span<const ElementRange> ranges);

/// Writes the flags of a part; `flags` are those of all ranges, `out` has
/// num_wake_bytes().
void WriteWakeBits(const ExcludedPart& part, absl::Span<const uint8_t> flags,
                   absl::Span<uint8_t> out);

/// flags <- flags or what WriteWakeBits wrote.
void AddWakeBits(const ExcludedPart& part, absl::Span<const uint8_t> bits,
                 absl::Span<uint8_t> flags);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_EXCLUDED_RANGES_H_
