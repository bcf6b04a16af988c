// Integers as little-endian bytes, wherever they lie.
#ifndef DELTAPIPE_BASE_LITTLE_ENDIAN_H_
#define DELTAPIPE_BASE_LITTLE_ENDIAN_H_

#include <cstddef>
#include <cstdint>

namespace deltapipe {

/// Writes `value` and returns where it ends.
template <typename Integer>
uint8_t* StoreLittleEndian(Integer value, uint8_t* at) {
  for (size_t i = 0; i < sizeof(Integer); ++i) {
    *at++ = static_cast<uint8_t>(value >> (8 * i));
  }
  return at;
}

template <typename Integer>
Integer LoadLittleEndian(const uint8_t* at) {
  Integer value = 0;
  for (size_t i = 0; i < sizeof(Integer); ++i) {
    value = static_cast<Integer>(value | Integer{at[i]} << (8 * i));
  }
  return value;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_LITTLE_ENDIAN_H_
