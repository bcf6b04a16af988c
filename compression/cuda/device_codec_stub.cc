// MakeDeviceCodec, MakeDeviceBits and MakeCudaMemory of builds without
// --config=cuda.
#include "base/status_macros.h"
#include "compression/cuda/device_bits.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/message_codec.h"

namespace deltapipe {

absl::StatusOr<std::unique_ptr<DeviceMemory>> MakeCudaMemory() {
  return absl::UnimplementedError(
      "this program was built without CUDA: build it with --config=cuda, or "
      "encode on the host");
}

absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeDeviceCodec(
    absl::string_view text, int64_t /*max_elements*/) {
  // The same errors for the same texts as with CUDA.
  DP_RETURN_IF_ERROR(cuda::MessagePlans::Parse(text).status());
  return MakeCudaMemory().status();
}

absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeDeviceCodecIn(
    std::unique_ptr<DeviceMemory> /*memory*/, absl::string_view text,
    int64_t max_elements) {
  return MakeDeviceCodec(text, max_elements);
}

absl::StatusOr<std::unique_ptr<DeviceBits>> MakeDeviceBits() {
  return MakeCudaMemory().status();
}

}  // namespace deltapipe
