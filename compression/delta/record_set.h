// The records of a state store at one moment: what a checkpoint keeps of a
// channel, and what moves with a slot to another worker.
//
// Taking them copies no record: they are counted and never change, so that a
// set may be written to a disk while training goes on.
//
//   const RecordSet set = TakeRecords(*store);          // between two steps
//   DP_RETURN_IF_ERROR(PutRecords(set, record_bytes, step, other.get()));
#ifndef DELTAPIPE_COMPRESSION_DELTA_RECORD_SET_H_
#define DELTAPIPE_COMPRESSION_DELTA_RECORD_SET_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "compression/delta/channel_memory.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

struct RecordSet {
  /// The last version that the channel gave out; 0 before the first.
  uint32_t last_version = 0;
  /// Least recent version first. Equal stores give equal sets.
  std::vector<std::pair<uint64_t, RecordPtr>> records;
};

/// What one end of a boundary remembers, in both directions; empty where
/// nothing is kept.
struct BoundaryState {
  RecordSet sent;      // records or residuals of what it encodes
  RecordSet received;  // records of what it decodes
  /// Whose they are, as BoundarySpec::Text; empty where that is not known.
  std::string sent_codec;
  std::string received_codec;
  /// What the codecs of its encoder remember.
  ChannelMemory::State memory;
};

/// All records with everything staged.
RecordSet TakeRecords(const StateStore& store);

/// Fills an empty store, of records of `record_bytes`, and commits it as of
/// `step`. FAILED_PRECONDITION if it is not empty; INVALID_ARGUMENT if the set
/// is of another record size, a key occurs twice or a version is impossible; or
/// an error of StateStore::Adopt. The store is then untouched.
absl::Status PutRecords(const RecordSet& set, int64_t record_bytes,
                        uint32_t step, StateStore* store);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_RECORD_SET_H_
