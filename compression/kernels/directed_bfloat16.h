// bf16 rounded to one side, so that a grid of a rounded scale and bias still
// covers what it was made for.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_DIRECTED_BFLOAT16_H_
#define DELTAPIPE_COMPRESSION_KERNELS_DIRECTED_BFLOAT16_H_

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "base/float_cast.h"
#include "base/host_device.h"

namespace deltapipe {

inline constexpr uint16_t kLargestBFloat16 = 0x7F7F;
inline constexpr uint16_t kBFloat16Infinity = 0x7F80;
inline constexpr uint16_t kBFloat16NaN = 0x7FC0;

/// The least bf16 that is >= value; the largest finite one if there is none.
/// `value` is finite.
DP_HOST_DEVICE inline uint16_t BFloat16AtLeast(double value) {
  const float narrow = static_cast<float>(
      std::min(std::max(value, -double{FLT_MAX}), double{FLT_MAX}));
  const uint32_t bits = FloatBits(narrow);
  const bool is_below = narrow < value;
  if ((bits >> 31) != 0) {
    return static_cast<uint16_t>((is_below ? bits - 1 : bits) >> 16);
  }
  const bool is_cut = (bits & 0xFFFFu) != 0 || is_below;
  return static_cast<uint16_t>(
      std::min<uint32_t>((bits >> 16) + is_cut, kLargestBFloat16));
}

/// The greatest bf16 that is <= value; the finite one of largest magnitude if
/// there is none. `value` is finite.
DP_HOST_DEVICE inline uint16_t BFloat16AtMost(double value) {
  return static_cast<uint16_t>(BFloat16AtLeast(-value) ^ 0x8000u);
}

DP_HOST_DEVICE inline bool IsFiniteBFloat16(uint16_t value) {
  return (value & 0x7FFFu) < kBFloat16Infinity;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_DIRECTED_BFLOAT16_H_
