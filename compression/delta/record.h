// What one end of a channel remembers of one sample: its last value as both
// ends stored it, and the version that names that value.
//
// Records are immutable once they are in a store and counted by shared_ptr: the
// store, its undo journal and keyframes still to be answered hold the same one.
#ifndef DELTAPIPE_COMPRESSION_DELTA_RECORD_H_
#define DELTAPIPE_COMPRESSION_DELTA_RECORD_H_

#include <cstdint>
#include <memory>

#include "base/buffer.h"

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

/// A record to fill, with content that is not initialised.
inline std::shared_ptr<Record> NewRecord(uint32_t version, int64_t bytes) {
  auto record = std::make_shared<Record>();
  record->version = version;
  record->values = Buffer(bytes);
  return record;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_RECORD_H_
