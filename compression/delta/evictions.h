// Which records the sender of a channel evicts, so that they stay within the
// cap that both ends share: those of the least recent visit.
//
// Used by the encoder, by its thread; the store is borrowed.
#ifndef DELTAPIPE_COMPRESSION_DELTA_EVICTIONS_H_
#define DELTAPIPE_COMPRESSION_DELTA_EVICTIONS_H_

#include <cstdint>
#include <set>
#include <vector>

#include "absl/types/span.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/node_cache.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

class Evictions {
 public:
  struct Victim {
    uint64_t key = 0;
    /// Of its record when it is evicted.
    uint32_t version = 0;
  };

  /// `store` may hold `capacity` records.
  Evictions(StateStore* store, int64_t capacity)
      : store_(store), capacity_(capacity) {}

  /// What to evict after a visit of `samples`, whose records get the versions
  /// after the store's last one: least recently visited first, `samples`
  /// themselves last. Valid until the next call.
  absl::Span<const Victim> After(absl::Span<const BoundarySample> samples);

 private:
  StateStore* const store_;
  const int64_t capacity_;
  NodeCache nodes_;
  // Of one call, kept for their memory.
  std::pmr::set<uint64_t> keys_{&nodes_};
  std::vector<Victim> visited_;  // the last visit of each key, latest first
  std::vector<Victim> victims_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_EVICTIONS_H_
