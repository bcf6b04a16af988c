// Signs as bits: one bit per float, for the sign codec and for 1-bit
// optimizers.
//
// Bit order: element i is bit i % 8 of byte i / 8, least significant first; the
// unused bits of the last byte are 0. A bit is 1 where the value is >= 0, so
// that zero counts as +1 and so does -0.0; NaN gives 0.
//
// Sums are in double over 16 lanes (element i into lane i % 16, in order), then
// added in a fixed tree, so that every path gives the same bits. All functions
// run the best vector instructions of the machine, take any alignment and any
// size, and are bit-equal to compression/kernels/reference/sign_bits.h.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_SIGN_BITS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_SIGN_BITS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

inline int64_t SignBytes(int64_t num_elements) {
  return (num_elements + 7) / 8;
}

/// The sum of squares in double: finite for any finite floats.
double SumOfSquares(absl::Span<const float> values);

/// The sum of magnitudes in double, as finite.
double SumOfMagnitudes(absl::Span<const float> values);

/// Packs the signs of `values` into `bits` (>= SignBytes(values.size())).
void PackSigns(absl::Span<const float> values, absl::Span<uint8_t> bits);

/// Packs the signs and leaves in `values` what they lose: for each element
/// values[i] <- values[i] - (sign ? scale : -scale), one subtraction.
void PackSignsWithResidual(absl::Span<float> values, float scale,
                           absl::Span<uint8_t> bits);

/// The same, but what would not be finite is left as 0.
void PackSignsWithFiniteResidual(absl::Span<float> values, float scale,
                                 absl::Span<uint8_t> bits);

/// out[i] <- sign ? scale : -scale.
void UnpackSigns(absl::Span<const uint8_t> bits, float scale,
                 absl::Span<float> out);

/// out[i] <- out[i] + (sign ? scale : -scale), one addition.
void UnpackSignsAccumulate(absl::Span<const uint8_t> bits, float scale,
                           absl::Span<float> out);

/// values[i] <- values[i] + addend[i]; returns SumOfSquares of the result: the
/// first pass of a compression with error feedback.
double AddAndSumOfSquares(absl::Span<float> values,
                          absl::Span<const float> addend);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_SIGN_BITS_H_
