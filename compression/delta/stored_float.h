// How a record stores a value, bf16 or fp32: to nearest, ties to even, without
// overflow (delta_kernels.h). One source for the CPU and for CUDA: both ends of
// a channel must store the same bits.
//
// Without branches, so that compilers vectorise loops over it.
#ifndef DELTAPIPE_COMPRESSION_DELTA_STORED_FLOAT_H_
#define DELTAPIPE_COMPRESSION_DELTA_STORED_FLOAT_H_

#include <cstdint>

#include "absl/base/attributes.h"
#include "base/float_cast.h"
#include "base/host_device.h"

namespace deltapipe {

ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline float FromStore(
    uint16_t stored) {
  return BFloat16ToFloat(stored);
}
ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline float FromStore(
    float stored) {
  return stored;
}

ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline void ToStore(
    float value, uint16_t* stored) {
  const uint32_t bits = FloatBits(value);
  const int32_t magnitude = static_cast<int32_t>(bits & 0x7FFFFFFFu);
  // Unsigned: the largest NaNs go beyond 2^31, and are replaced below.
  int32_t rounded = static_cast<int32_t>(
      ((bits & 0x7FFFFFFFu) + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
  rounded = rounded > 0x7F7F ? 0x7F7F : rounded;
  rounded = magnitude > 0x7F800000 ? 0x7FC0 : rounded;
  *stored = static_cast<uint16_t>(((bits >> 16) & 0x8000u) |
                                  static_cast<uint32_t>(rounded));
}

ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline void ToStore(float value,
                                                                float* stored) {
  const uint32_t bits = FloatBits(value);
  const int32_t magnitude = static_cast<int32_t>(bits & 0x7FFFFFFFu);
  int32_t kept = magnitude > 0x7F7FFFFF ? 0x7F7FFFFF : magnitude;
  kept = magnitude > 0x7F800000 ? 0x7FC00000 : kept;
  *stored = BitsToFloat((bits & 0x80000000u) | static_cast<uint32_t>(kept));
}

/// What error feedback keeps of `left`: 0 where that is not finite.
ABSL_ATTRIBUTE_ALWAYS_INLINE DP_HOST_DEVICE inline float KeptResidual(
    float left) {
  const uint32_t bits = FloatBits(left);
  const bool is_finite = static_cast<int32_t>(bits & 0x7FFFFFFFu) < 0x7F800000;
  return BitsToFloat(is_finite ? bits : 0u);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_STORED_FLOAT_H_
