// The plain statement of the `int` codec's kernels, one element at a time: what
// the vector kernels must equal in every bit. Used by tests and by anyone who
// wants to read what the codec does.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_INT_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_INT_QUANTIZE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/philox.h"
#include "compression/kernels/int_scale.h"

namespace deltapipe {
namespace reference {

/// As deltapipe::IntQuantize.
void IntQuantize(const IntFormat& format, absl::Span<const float> in,
                 const RandomKey& key, uint8_t* payload);

/// As deltapipe::IntDequantize.
void IntDequantize(const IntFormat& format, const uint8_t* payload,
                   absl::Span<float> out);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_REFERENCE_INT_QUANTIZE_H_
