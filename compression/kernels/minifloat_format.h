// Minifloats of 2 to 8 bits with a scale per block: the numbers that both the
// reference kernel and the vector kernel of `luq` and `fp` compute once per
// block.
//
// A code is a sign bit above `exponent_bits` bits E above `mantissa_bits` bits
// F. With T = 2^exponent_bits - 1, the largest E, its magnitude stands for
//
//   E > 0:  (1 + F / 2^mantissa_bits) * 2^(E - T + 1)
//   E = 0:       F / 2^mantissa_bits  * 2^(2 - T)         (subnormals)
//
// times the scale, so that the largest is top() = 4 - 2^(1 - mantissa_bits)
// times the scale. No code stands for an infinity or a NaN.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_MINIFLOAT_FORMAT_H_
#define DELTAPIPE_COMPRESSION_KERNELS_MINIFLOAT_FORMAT_H_

#include <cstdint>

#include "base/float_cast.h"
#include "base/host_device.h"
#include "compression/kernels/largest_magnitude.h"

namespace deltapipe {

struct MinifloatFormat {
  int exponent_bits = 3;  // 1..7
  int mantissa_bits = 0;  // 0..6, at most 8 bits with the sign
  /// Values that share a scale, a multiple of 16; 0: all of them.
  int64_t block = 128;
  bool is_stochastic = false;
  /// Independent draws, whose mean Dequantize gives; more than 1 only with
  /// is_stochastic.
  int num_samples = 1;

  DP_HOST_DEVICE int bits() const { return 1 + exponent_bits + mantissa_bits; }
  DP_HOST_DEVICE int largest_exponent() const {
    return (1 << exponent_bits) - 1;
  }
  /// The largest magnitude and the smallest normal one, in units of the scale.
  DP_HOST_DEVICE float top() const {
    return 4 - BitsToFloat(static_cast<uint32_t>(128 - mantissa_bits) << 23);
  }
  DP_HOST_DEVICE float smallest_normal() const {
    return BitsToFloat(static_cast<uint32_t>(129 - largest_exponent()) << 23);
  }
  /// The bits of an fp32 mantissa that a code does not hold.
  DP_HOST_DEVICE int dropped_bits() const { return 23 - mantissa_bits; }
  /// What the magnitude of a code is counted from: see MinifloatCode.
  DP_HOST_DEVICE uint32_t base() const {
    return FloatBits(smallest_normal()) >> dropped_bits();
  }
};

/// Scales as they are stored, in bf16.
constexpr uint16_t kMinifloatScaleZero = 0;           // all values are 0
constexpr uint16_t kMinifloatScaleSmallest = 0x0080;  // 2^-126
constexpr uint16_t kMinifloatScaleLargest = 0x7F00;   // 2^127
constexpr uint16_t kMinifloatScaleNonFinite = 0x7FC0;

/// The scale of a block whose largest magnitude has the fp32 bits
/// `largest_bits`: the smallest bf16 number that puts it at the top of the
/// range or just below.
DP_HOST_DEVICE inline uint16_t MinifloatScale(const MinifloatFormat& format,
                                              uint32_t largest_bits) {
  if (largest_bits == 0) return kMinifloatScaleZero;
  if (largest_bits >= kInfinityBits) return kMinifloatScaleNonFinite;
  const uint32_t exact = FloatBits(BitsToFloat(largest_bits) / format.top());
  const uint32_t up = (exact + 0xFFFFu) >> 16;
  return up < kMinifloatScaleSmallest ? kMinifloatScaleSmallest
                                      : static_cast<uint16_t>(up);
}

/// What the payload of a block may have as its scale.
DP_HOST_DEVICE inline bool IsMinifloatScale(uint16_t scale) {
  return scale == kMinifloatScaleZero || scale == kMinifloatScaleNonFinite ||
         (scale >= kMinifloatScaleSmallest && scale <= kMinifloatScaleLargest);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_MINIFLOAT_FORMAT_H_
