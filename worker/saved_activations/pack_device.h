// PackDevice: a device and the kernels that pack there.
//
// That of CUDA has them in builds with --config=cuda; tests have one of the
// host (testing/host_pack_device.h), which runs the same kernels.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACK_DEVICE_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACK_DEVICE_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "c10/core/Device.h"
#include "compression/cuda/device_bits.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"

namespace deltapipe {

struct PackDevice {
  c10::Device device = c10::kCPU;
  /// MakeDeviceCodecIn.
  std::function<absl::StatusOr<std::unique_ptr<DeviceCodec>>(
      std::unique_ptr<DeviceMemory> memory, absl::string_view text,
      int64_t max_elements)>
      make_codec;
  std::unique_ptr<DeviceBits> bits;
};

/// The GPU `device`, which must be the current one of all threads that pack.
/// UNIMPLEMENTED in a build without --config=cuda.
absl::StatusOr<PackDevice> MakeCudaPackDevice(c10::Device device);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_PACK_DEVICE_H_
