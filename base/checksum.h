// The checksum of frames, records and files: XXH3, 64 bits.
//
// Detects damage, not malice. Thread-safe.
#ifndef DELTAPIPE_BASE_CHECKSUM_H_
#define DELTAPIPE_BASE_CHECKSUM_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"

namespace deltapipe {

/// XXH3-64 of `bytes`, chained on `seed`.
uint64_t Checksum(absl::Span<const uint8_t> bytes, uint64_t seed = 0);

/// XXH3-64 over several pieces: equal to Checksum of their concatenation.
class ChecksumStream {
 public:
  ChecksumStream();
  ~ChecksumStream();
  void Update(absl::Span<const uint8_t> bytes);
  uint64_t Digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_CHECKSUM_H_
