// Bits for masks and for what is not zero, eight to a byte, the first in the
// lowest bit (worker/saved_activations/bit_mask.h), and whether values are
// finite: what saved activations need on a device beside codecs.
#ifndef DELTAPIPE_COMPRESSION_CUDA_BIT_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_BIT_KERNELS_H_

#include <cfloat>
#include <cstdint>

#include "base/host_device.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/kernels/largest_magnitude.h"

namespace deltapipe {
namespace cuda {

/// Whether bit i is to be set: of a bool (a byte, 0 or 1), or of a float that
/// is not 0 (NaN is not).
struct BoolBit {
  const uint8_t* bools;
  DP_HOST_DEVICE bool operator()(int64_t i) const { return bools[i] != 0; }
};
struct NonzeroBit {
  const float* values;
  DP_HOST_DEVICE bool operator()(int64_t i) const { return values[i] != 0; }
};

/// Half warp `group` packs 64 of `count` bits; unused ones become 0.
template <class Bit>
struct BitsEncode {
  Bit bit;
  int64_t count;
  uint8_t* bits;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    uint64_t word = 0;
    for (int j = 0; j < 4; ++j) {
      Lanes<bool> is_set;
      EachLane([&](int lane) {
        const int64_t i = group * 64 + 16 * j + lane;
        is_set[lane] = i < count && bit(i);
      });
      word |= static_cast<uint64_t>(Ballot(is_set)) << (16 * j);
    }
    EachLane([&](int lane) {
      const int64_t byte = group * 8 + lane;
      if (lane < 8 && byte * 8 < count) {
        bits[byte] = static_cast<uint8_t>(word >> (8 * lane));
      }
    });
  }
};

DP_HOST_DEVICE inline bool BitOf(const uint8_t* bits, int64_t i) {
  return ((bits[i / 8] >> (i % 8)) & 1u) != 0;
}

/// Half warp `group` writes 64 of `count` bools, 0 or 1.
struct BitsDecode {
  const uint8_t* bits;
  int64_t count;
  uint8_t* bools;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i < count) bools[i] = BitOf(bits, i) ? 1 : 0;
      }
    });
  }
};

/// RestoreZeros of bit_mask.h, 64 values a half warp: what was 0 becomes 0, and
/// what was not but is not above 0 now the smallest normal number.
struct ZerosRestore {
  const uint8_t* bits;
  int64_t count;
  float* values;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i >= count) continue;
        const float value = values[i] > 0 ? values[i] : FLT_MIN;
        values[i] = BitOf(bits, i) ? value : 0.0f;
      }
    });
  }
};

/// The values that one half warp looks through.
constexpr int64_t kFiniteRun = 1024;

/// Half warp `run` sets *flag to 1 if one of its values is not finite.
struct NotFiniteFlag {
  const float* values;
  int64_t count;
  uint32_t* flag;

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t end = SmallerOf((run + 1) * kFiniteRun, count);
    Lanes<bool> is_not_finite;
    EachLane([&](int lane) {
      is_not_finite[lane] = false;
      for (int64_t i = run * kFiniteRun + lane; i < end; i += kLanes) {
        if (MagnitudeBits(values[i]) >= kInfinityBits) {
          is_not_finite[lane] = true;
        }
      }
    });
    const bool found = Ballot(is_not_finite) != 0;
    EachLane([&](int lane) {
      if (lane == 0 && found) AtomicOr(flag, 1);
    });
  }
};

/// One half warp: adds the flag to *count and clears it.
struct FlagCount {
  uint32_t* flag;
  uint32_t* count;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      if (lane != 0) return;
      *count += *flag;
      *flag = 0;
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_BIT_KERNELS_H_
