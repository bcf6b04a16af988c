// One trial of a decoder with bytes that nobody vouches for: what the fuzzers
// repeat for minutes and the suites some thousand times.
//
//   absl::Status broken = TryDecoder(*codec, input);  // a promise, in words
//
// Reads out of bounds are for the sanitizers to find: payloads and values lie
// in blocks of exactly their size. Thread-safe.
#ifndef DELTAPIPE_COMPRESSION_TESTING_DECODER_TRIAL_H_
#define DELTAPIPE_COMPRESSION_TESTING_DECODER_TRIAL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/testing/trial_input.h"

namespace deltapipe {

/// What decoding may allocate in all: for error messages and an entropy coder's
/// tables, and for each value and byte that is there.
constexpr int64_t AllocationLimit(int64_t num_elements, int64_t payload_bytes) {
  return (int64_t{512} << 10) + 64 * num_elements + 4 * payload_bytes;
}

/// Decodes to a number of values that `input` chooses (at most 4,096) the rest
/// of `input` as it is, or what real values encode to with damage done by it.
/// OK if what was encoded decodes, and whatever else the bytes are, the decoder
/// returns the same twice, writes all values or says INVALID_ARGUMENT, refuses
/// a wrong size where it is fixed, and stays within AllocationLimit.
/// Otherwise INTERNAL says which of these is broken.
absl::Status TryDecoder(const Codec& codec, TrialInput input);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_DECODER_TRIAL_H_
