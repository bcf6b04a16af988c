// fp32 to bf16 and fp16 and back, by integer arithmetic that is the same on
// every machine: round to nearest, ties to even; subnormals kept.
//
// Finite values stay finite (they saturate at the largest finite number of the
// narrow type), because an overflow in a stored activation would spread NaN;
// infinities and NaN are kept.
#ifndef DELTAPIPE_BASE_FLOAT_CAST_H_
#define DELTAPIPE_BASE_FLOAT_CAST_H_

#include <cstdint>
#include <cstring>

#include "base/host_device.h"

namespace deltapipe {

DP_HOST_DEVICE inline uint32_t FloatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

DP_HOST_DEVICE inline float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

DP_HOST_DEVICE inline uint16_t FloatToBFloat16(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) {  // NaN: quiet, sign kept
    return static_cast<uint16_t>((bits >> 16) | 0x0040u);
  }
  if (magnitude == 0x7F800000u) return static_cast<uint16_t>(bits >> 16);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t sign = (bits >> 16) & 0x8000u;
  return static_cast<uint16_t>((rounded & 0x7FFFu) >= 0x7F80u ? (sign | 0x7F7Fu)
                                                              : rounded);
}

DP_HOST_DEVICE inline float BFloat16ToFloat(uint16_t value) {
  return BitsToFloat(static_cast<uint32_t>(value) << 16);
}

DP_HOST_DEVICE inline uint16_t FloatToFloat16(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (magnitude == 0x7F800000u) return static_cast<uint16_t>(sign | 0x7C00u);
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7BFFu);
  if (magnitude < 0x38800000u) {  // subnormal in fp16, or zero
    // Adding 0.5 puts the result's 10 bits at the bottom of the mantissa.
    const float shifted = BitsToFloat(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (FloatBits(shifted) - 0x3F000000u));
  }
  const uint32_t rebiased = magnitude - 0x38000000u;
  return static_cast<uint16_t>(
      sign | ((rebiased + 0x0FFFu + ((rebiased >> 13) & 1u)) >> 13));
}

DP_HOST_DEVICE inline float Float16ToFloat(uint16_t value) {
  const uint32_t sign = static_cast<uint32_t>(value & 0x8000u) << 16;
  const uint32_t exponent = (value >> 10) & 0x1Fu;
  const uint32_t mantissa = value & 0x3FFu;
  if (exponent == 0x1Fu) {
    return BitsToFloat(sign | 0x7F800000u | (mantissa << 13));
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return BitsToFloat(sign | FloatBits(magnitude));
  }
  return BitsToFloat(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_FLOAT_CAST_H_
