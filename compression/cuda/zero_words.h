// Zeros for maxima that half warps then raise.
#ifndef DELTAPIPE_COMPRESSION_CUDA_ZERO_WORDS_H_
#define DELTAPIPE_COMPRESSION_CUDA_ZERO_WORDS_H_

#include <cstdint>

#include "base/host_device.h"
#include "compression/cuda/half_warp.h"

namespace deltapipe {
namespace cuda {

/// Half warp `group` writes 64 of `count` words.
struct ZeroWords {
  uint32_t* words;
  int64_t count;

  DP_HOST_DEVICE void operator()(int64_t group,
                                 HalfWarpMemory* /*memory*/) const {
    EachLane([&](int lane) {
      for (int j = 0; j < 4; ++j) {
        const int64_t i = group * 64 + 16 * j + lane;
        if (i < count) words[i] = 0;
      }
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_ZERO_WORDS_H_
