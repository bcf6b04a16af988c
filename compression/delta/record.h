// What one end of a channel remembers of one sample: its last value as both
// ends stored it, and the version that names that value.
//
// Records are immutable once they are in a store and counted by shared_ptr: the
// store, its undo journal and keyframes still to be answered hold the same one.
// Their memory comes from a RecordPool, so that a run in steady state allocates
// none.
#ifndef DELTAPIPE_COMPRESSION_DELTA_RECORD_H_
#define DELTAPIPE_COMPRESSION_DELTA_RECORD_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "base/buffer.h"
#include "base/mutex.h"

namespace deltapipe {

struct Record {
  /// Grows with every record that a channel writes, across all keys, so that it
  /// also orders the keys by their last visit. 0 is no version.
  uint32_t version = 0;
  /// The elements, bf16 or fp32 as the channel's store says.
  Buffer values;

  template <typename Element>
  const Element* elements() const {
    return reinterpret_cast<const Element*>(values.data());
  }
};

using RecordPtr = std::shared_ptr<const Record>;

/// Makes records of one size and takes the memory of dropped ones back.
/// Thread-safe; records may outlive the pool.
class RecordPool {
 public:
  /// Keeps at most `max_idle_bytes` of memory that no record uses.
  RecordPool(int64_t record_bytes, int64_t max_idle_bytes);

  /// A record to fill, with content that is not initialised.
  std::shared_ptr<Record> Make(uint32_t version);

  int64_t record_bytes() const { return record_bytes_; }

 private:
  struct Idle {
    Mutex mutex;
    std::vector<std::unique_ptr<Record>> records DP_GUARDED_BY(mutex);
  };

  const int64_t record_bytes_;
  const int64_t max_idle_records_;
  const std::shared_ptr<Idle> idle_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_RECORD_H_
