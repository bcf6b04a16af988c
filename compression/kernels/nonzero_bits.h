// Which values are not zero, as bits, and those values side by side: what the
// `nonzero` codec does before and after its inner codec.
//
// Bit order: element i is bit i % 8 of byte i / 8, least significant first; the
// unused bits of the last byte are 0. +0 and -0 are zero; subnormals, NaN and
// infinities are not. All functions take any alignment and any size, and write
// the same bytes on any machine.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_NONZERO_BITS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_NONZERO_BITS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

/// Values that TakeNonzero may write, and SpreadNonzero read, past the last
/// one.
inline constexpr int64_t kNonzeroPadding = 64;

inline int64_t NonzeroBytes(int64_t num_elements) {
  return (num_elements + 7) / 8;
}

struct TakenNonzero {
  int64_t count = 0;
  /// The sign bit of one of them is set.
  bool has_negative = false;
};

/// Writes NonzeroBytes(values.size()) bytes and the values that are not zero,
/// in order. `kept` has room for values.size() + kNonzeroPadding.
TakenNonzero TakeNonzero(absl::Span<const float> values, uint8_t* bits,
                         float* kept);

/// The number of bits that are 1 in `num_elements` of `bits`; unused bits of
/// the last byte must be 0.
int64_t CountNonzero(const uint8_t* bits, int64_t num_elements);

/// values[i] <- values[i] if it has the sign that `negative` says and is no
/// zero, or is a NaN; else the smallest normal number of that sign. Bit i of
/// `negative`: the i-th is negative; null: none is.
void KeepSigns(const uint8_t* negative, absl::Span<float> values);

/// out[i] <- the next of `kept` where the bit is 1, else +0. `kept` holds
/// CountNonzero values and has kNonzeroPadding more that may be read.
void SpreadNonzero(const uint8_t* bits, const float* kept,
                   absl::Span<float> out);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_NONZERO_BITS_H_
