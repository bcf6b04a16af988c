// Integers on the wire: little-endian on every machine, unaligned.
#ifndef DELTAPIPE_WORKER_TRANSPORT_LITTLE_ENDIAN_H_
#define DELTAPIPE_WORKER_TRANSPORT_LITTLE_ENDIAN_H_

#include <cstdint>

namespace deltapipe {

inline void StoreLittleEndian16(uint8_t* at, uint16_t value) {
  for (int i = 0; i < 2; ++i) at[i] = static_cast<uint8_t>(value >> (8 * i));
}
inline void StoreLittleEndian32(uint8_t* at, uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<uint8_t>(value >> (8 * i));
}
inline void StoreLittleEndian64(uint8_t* at, uint64_t value) {
  for (int i = 0; i < 8; ++i) at[i] = static_cast<uint8_t>(value >> (8 * i));
}

inline uint16_t LoadLittleEndian16(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] | (at[1] << 8));
}
inline uint32_t LoadLittleEndian32(const uint8_t* at) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= uint32_t{at[i]} << (8 * i);
  return value;
}
inline uint64_t LoadLittleEndian64(const uint8_t* at) {
  uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= uint64_t{at[i]} << (8 * i);
  return value;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_LITTLE_ENDIAN_H_
