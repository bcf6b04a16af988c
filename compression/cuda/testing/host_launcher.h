// The kernels of CUDA on the host: a DeviceCodec whose half warps take turns,
// the last one first, in memory of the host. It shows that the kernels are
// right but for what only a GPU can do wrong; it is slow.
#ifndef DELTAPIPE_COMPRESSION_CUDA_TESTING_HOST_LAUNCHER_H_
#define DELTAPIPE_COMPRESSION_CUDA_TESTING_HOST_LAUNCHER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "compression/cuda/device_bits.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/half_warp.h"

namespace deltapipe {

class HostLauncher {
 public:
  template <class Body>
  absl::Status Launch(const Body& body, int64_t num_half_warps,
                      DeviceStream /*stream*/) {
    for (int64_t index = num_half_warps - 1; index >= 0; --index) {
      cuda::HalfWarpMemory memory;
      for (uint64_t& eight : memory.eights) eight = 0xA5A5A5A5A5A5A5A5u;
      body(index, &memory);
    }
    return absl::OkStatus();
  }
};

std::unique_ptr<DeviceMemory> MakeHostMemory();

/// As MakeDeviceCodec.
absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeHostLaunchedCodec(
    absl::string_view text, int64_t max_elements);

/// As MakeDeviceCodecIn.
absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeHostLaunchedCodecIn(
    std::unique_ptr<DeviceMemory> memory, absl::string_view text,
    int64_t max_elements);

/// As MakeDeviceBits.
std::unique_ptr<DeviceBits> MakeHostLaunchedBits();

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_TESTING_HOST_LAUNCHER_H_
