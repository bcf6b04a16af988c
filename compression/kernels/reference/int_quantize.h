// The plain statement of the `int` codec's kernels, one element at a time: what
// the vector kernels must equal in every bit. Used by tests and by anyone who
// wants to read what the codec does.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_INT_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_INT_QUANTIZE_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/kernels/int_scale.h"

namespace deltapipe {
namespace reference {

/// As deltapipe::IntQuantize.
void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload);

/// The bits of the largest magnitude; NaN counts as larger than infinity.
uint32_t LargestMagnitudeBits(absl::Span<const float> values);

/// The scales and codes of whole blocks, the first of which begins at element
/// `begin` of the tensor; `scales` and `codes` are those of that block.
void IntQuantizeBlocks(const IntFormat& format, const IntUnits& units,
                       absl::Span<const float> in, const RandomKey& key,
                       size_t begin, uint8_t* scales, uint8_t* codes);

/// Their values.
void IntDequantizeBlocks(const IntFormat& format, const IntUnits& units,
                         const uint8_t* scales, const uint8_t* codes,
                         absl::Span<float> out);

/// As deltapipe::IntDequantize.
void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_INT_QUANTIZE_H_
