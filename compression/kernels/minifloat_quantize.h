// The kernels of `luq` and `fp`: blocks of floats to minifloats, and back.
//
// Payload of n > 0 elements, blocks of `format.block`:
//   u16[ceil(n / block)]       the blocks' scales, bf16 (minifloat_format.h)
//   num_samples times:
//     u8[ceil(n * bits / 8)]   the codes as one stream of bits, least
//                              significant first; the unused bits are 0
// No elements, no bytes. The vector kernels run the machine's best instructions
// and are bit-equal to compression/kernels/reference/minifloat_quantize.h.
//
// Encoding a value x of a block of scale s: y = |x| * (1 / s), at most the top;
// z = y + max(y, smallest normal) is an fp32 number whose exponent and upper
// mantissa bits, less those of z = smallest normal, are the code's magnitude,
// subnormals included. What is below them is rounded: to nearest, ties to the
// even code; or stochastically, by adding random bits to the dropped ones and
// letting the carry round, up with a probability equal to the dropped fraction
// (LUQ, arXiv 2112.10769, in one step: stochastic underflow below
// the smallest power and stochastic rounding between powers). y and z are
// rounded to fp32: the mean is x to within 2^-21 |x| + 2^-24 of the smallest
// normal magnitude. Zeros lose their sign.
//
// Random bits: element 128 g + 64 h + 16 j + l (h < 2, j < 4, l < 16) of
// sample s takes the 16 bits from 16 h on of word j of the Philox block of
// counter 16 g + l, stream 2 s. Where these cannot decide, one case in 65,536,
// the upper bits of word i % 4 of counter i / 4 of stream 2 s + 1 follow, i the
// element.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_MINIFLOAT_QUANTIZE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_MINIFLOAT_QUANTIZE_H_

#include <cstdint>

#include "absl/types/span.h"
#include "base/host_device.h"
#include "base/philox.h"
#include "compression/kernels/minifloat_format.h"

namespace deltapipe {

DP_HOST_DEVICE inline int64_t MinifloatNumBlocks(const MinifloatFormat& format,
                                                 int64_t num_elements) {
  if (format.block == 0) return num_elements == 0 ? 0 : 1;
  return (num_elements + format.block - 1) / format.block;
}

/// Of one sample.
DP_HOST_DEVICE inline int64_t MinifloatCodeBytes(const MinifloatFormat& format,
                                                 int64_t num_elements) {
  return (num_elements * format.bits() + 7) / 8;
}

DP_HOST_DEVICE inline int64_t MinifloatPayloadBytes(
    const MinifloatFormat& format, int64_t num_elements) {
  return 2 * MinifloatNumBlocks(format, num_elements) +
         format.num_samples * MinifloatCodeBytes(format, num_elements);
}

/// Writes MinifloatPayloadBytes(format, in.size()) bytes to `payload`. A block
/// with a NaN or an infinity becomes kMinifloatScaleNonFinite and zero codes.
void MinifloatQuantize(const MinifloatFormat& format,
                       absl::Span<const float> in, const RandomKey& key,
                       uint8_t* payload);

/// The same with one scale for all, for values up to `range` > 0 in magnitude;
/// larger ones are clamped. format.block must be 0 and the values finite.
void MinifloatQuantizeInRange(const MinifloatFormat& format, float range,
                              absl::Span<const float> in, const RandomKey& key,
                              uint8_t* payload);

/// Reads MinifloatPayloadBytes(format, out.size()) bytes, whose scales must all
/// satisfy IsMinifloatScale. Gives finite values (the largest float, where a
/// value would be above it), or NaN in blocks of kMinifloatScaleNonFinite.
void MinifloatDequantize(const MinifloatFormat& format, const uint8_t* payload,
                         absl::Span<float> out);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_MINIFLOAT_QUANTIZE_H_
