// Rows of fp32 to 16-bit floats and back: base/float_cast.h for whole spans,
// with the machine's best vector instructions and the same bits. Any alignment,
// any size; 16-bit floats are little-endian bytes.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_NARROW_FLOATS_H_
#define DELTAPIPE_COMPRESSION_KERNELS_NARROW_FLOATS_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

enum class NarrowFloat { kBFloat16, kFloat16 };

/// Writes 2 * in.size() bytes to `out`.
void NarrowFloats(NarrowFloat type, absl::Span<const float> in, uint8_t* out);

/// Reads 2 * out.size() bytes from `in`.
void WidenFloats(NarrowFloat type, const uint8_t* in, absl::Span<float> out);

namespace reference {

void NarrowFloats(NarrowFloat type, absl::Span<const float> in, uint8_t* out);
void WidenFloats(NarrowFloat type, const uint8_t* in, absl::Span<float> out);

}  // namespace reference
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_NARROW_FLOATS_H_
