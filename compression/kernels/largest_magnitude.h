// The largest magnitude of a tensor: what scales are made from.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_LARGEST_MAGNITUDE_H_
#define DELTAPIPE_COMPRESSION_KERNELS_LARGEST_MAGNITUDE_H_

#include <cstdint>

#include "absl/types/span.h"

namespace deltapipe {

/// The fp32 bits of infinity: magnitudes are finite below them.
constexpr uint32_t kInfinityBits = 0x7F800000u;

/// The fp32 bits of the largest |values[i]|, which order as the magnitudes do;
/// kInfinityBits or more if there is an infinity or a NaN, 0 for no values. By
/// the machine's best vector instructions; any alignment.
uint32_t LargestMagnitudeBits(absl::Span<const float> values);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_LARGEST_MAGNITUDE_H_
