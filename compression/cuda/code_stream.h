// Codes of 1 to 8 bits as a dense stream, least significant bit first
// (kernels/bit_packing.h), written and read by half warps.
#ifndef DELTAPIPE_COMPRESSION_CUDA_CODE_STREAM_H_
#define DELTAPIPE_COMPRESSION_CUDA_CODE_STREAM_H_

#include <cstdint>

#include "base/host_device.h"
#include "compression/cuda/half_warp.h"

namespace deltapipe {
namespace cuda {

/// Gathers the low `bits` of each byte of `codes`: GatherCodes of
/// bit_packing.h.
DP_HOST_DEVICE inline uint64_t GatherEight(int bits, uint64_t codes) {
  if (bits == 8) return codes;
  constexpr uint64_t kBytes = 0x00FF00FF00FF00FFu;
  constexpr uint64_t kPairs = 0x0000FFFF0000FFFFu;
  codes = (codes & kBytes) | ((codes & ~kBytes) >> (8 - bits));
  codes = (codes & kPairs) | ((codes & ~kPairs) >> (16 - 2 * bits));
  return (codes & 0xFFFFFFFFu) | ((codes >> 32) << (4 * bits));
}

/// Writes the codes from place `first` to `last` of `memory` as whole bytes to
/// `out`. `first` is a multiple of 8; codes up to the next one after `last` are
/// 0.
DP_HOST_DEVICE inline void WriteCodes(int bits, const HalfWarpMemory& memory,
                                      int first, int last, uint8_t* out) {
  const int num_bytes = ((last - first) * bits + 7) / 8;
  EachLane([&](int lane) {
    for (int i = lane; i < num_bytes; i += kLanes) {
      const int eight = static_cast<int>(static_cast<unsigned>(i) /
                                         static_cast<unsigned>(bits));
      out[i] = static_cast<uint8_t>(
          GatherEight(bits, memory.eights[first / 8 + eight]) >>
          (8 * (i - eight * bits)));
    }
  });
}

/// Code `index` of the stream of `stream_bytes` at `stream`.
DP_HOST_DEVICE inline uint32_t ReadCode(int bits, const uint8_t* stream,
                                        int64_t stream_bytes, int64_t index) {
  const int64_t position = index * bits;
  const int64_t byte = position / 8;
  uint32_t word = stream[byte];
  if (byte + 1 < stream_bytes) {
    word |= static_cast<uint32_t>(stream[byte + 1]) << 8;
  }
  return word >> (position % 8) & ((1u << bits) - 1);
}

/// Whether the bits past `num_bits` in the stream's last byte are 0.
DP_HOST_DEVICE inline bool UnusedBitsAreZero(const uint8_t* stream,
                                             int64_t num_bits) {
  return num_bits % 8 == 0 || stream[num_bits / 8] >> (num_bits % 8) == 0;
}

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_CODE_STREAM_H_
