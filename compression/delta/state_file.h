// A state store as bytes: what a checkpoint keeps of a channel, and what moves
// with a slot to another worker.
//
// Format, little-endian: "DPSTATE1", u64 record bytes, u64 number of records,
// u32 last version, u32 zero; per record, least recent version first: u64 key,
// u32 version, u32 zero, the elements; at last u64, the checksum of all before.
#ifndef DELTAPIPE_COMPRESSION_DELTA_STATE_FILE_H_
#define DELTAPIPE_COMPRESSION_DELTA_STATE_FILE_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

/// Takes the next bytes; they are only valid during the call.
using ByteSink = std::function<absl::Status(absl::Span<const uint8_t>)>;

/// Writes all records with everything staged. Equal stores give equal bytes.
/// Returns the first error of `sink`.
absl::Status ExportState(const StateStore& store, const ByteSink& sink);

/// Fills an empty store, of records of `record_bytes`, and commits it as of
/// `step`. FAILED_PRECONDITION if it is not empty; INVALID_ARGUMENT if the
/// bytes are damaged or of another record size; the store is then untouched.
absl::Status ImportState(absl::Span<const uint8_t> bytes, int64_t record_bytes,
                         uint32_t step, StateStore* store);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_STATE_FILE_H_
