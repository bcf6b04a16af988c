// Bits for bools, eight to a byte, the first in the lowest bit.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_BIT_MASK_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_BIT_MASK_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

inline int64_t BitMaskBytes(int64_t num_elements) {
  return (num_elements + 7) / 8;
}

/// `bools` are 0 or 1; `bits` has BitMaskBytes of them, unused bits become 0.
void PackBits(absl::Span<const uint8_t> bools, absl::Span<uint8_t> bits);
void UnpackBits(absl::Span<const uint8_t> bits, absl::Span<uint8_t> bools);

/// A bit for each value that is not 0 (NaN is not).
void PackNonzeros(absl::Span<const float> values, absl::Span<uint8_t> bits);
/// What was 0 becomes 0, and what was not but is 0 now becomes the smallest
/// normal number: a relu's mask.
void RestoreZeros(absl::Span<const uint8_t> bits, absl::Span<float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_BIT_MASK_H_
