// DeviceBits by launches of kernels, for whatever launches them: see
// message_codec.h, which has what a Launcher is.
#ifndef DELTAPIPE_COMPRESSION_CUDA_LAUNCHED_BITS_H_
#define DELTAPIPE_COMPRESSION_CUDA_LAUNCHED_BITS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "compression/cuda/bit_kernels.h"
#include "compression/cuda/device_bits.h"

namespace deltapipe {
namespace cuda {

template <class Launcher>
class LaunchedBits final : public DeviceBits {
 public:
  absl::Status PackBits(const uint8_t* bools, int64_t count, uint8_t* bits,
                        DeviceStream stream) override {
    return Launcher().Launch(BitsEncode<BoolBit>{{bools}, count, bits},
                             Groups(count), stream);
  }
  absl::Status UnpackBits(const uint8_t* bits, int64_t count, uint8_t* bools,
                          DeviceStream stream) override {
    return Launcher().Launch(BitsDecode{bits, count, bools}, Groups(count),
                             stream);
  }
  absl::Status PackNonzeros(const float* values, int64_t count, uint8_t* bits,
                            DeviceStream stream) override {
    return Launcher().Launch(BitsEncode<NonzeroBit>{{values}, count, bits},
                             Groups(count), stream);
  }
  absl::Status RestoreZeros(const uint8_t* bits, int64_t count, float* values,
                            DeviceStream stream) override {
    return Launcher().Launch(ZerosRestore{bits, count, values}, Groups(count),
                             stream);
  }
  absl::Status CountIfNotFinite(const float* values, int64_t count,
                                uint32_t* words, DeviceStream stream) override {
    DP_RETURN_IF_ERROR(Launcher().Launch(NotFiniteFlag{values, count, words},
                                         (count + kFiniteRun - 1) / kFiniteRun,
                                         stream));
    return Launcher().Launch(FlagCount{words, words + 1}, 1, stream);
  }

 private:
  static int64_t Groups(int64_t count) { return (count + 63) / 64; }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_LAUNCHED_BITS_H_
