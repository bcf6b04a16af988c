// MakeDeviceCodec, MakeDeviceBits and MakeCudaMemory of builds with
// --config=cuda.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/cuda/cuda_launch.h"
#include "compression/cuda/device_bits.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/launched_bits.h"
#include "compression/cuda/message_codec.h"

namespace deltapipe {
namespace {

absl::Status CudaError(absl::string_view what, int error) {
  return absl::InternalError(
      absl::StrCat(what, " failed on the GPU: ", cuda::CudaErrorText(error)));
}

class CudaLauncher {
 public:
  template <class Body>
  absl::Status Launch(const Body& body, int64_t num_half_warps,
                      DeviceStream stream) {
    const int error = cuda::LaunchOnCuda(body, num_half_warps, stream);
    return error == 0 ? absl::OkStatus() : CudaError("a launch", error);
  }
};

class CudaMemory final : public DeviceMemory {
 public:
  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    void* memory = nullptr;
    const int error = cuda::AllocateOnCuda(static_cast<size_t>(bytes), &memory);
    if (error == 0) return memory;
    return absl::ResourceExhaustedError(
        absl::StrCat("an allocation of ", bytes,
                     " bytes failed on the GPU: ", cuda::CudaErrorText(error)));
  }

  void Free(void* memory) override {
    // Fails only where an earlier error has been returned or the program ends.
    static_cast<void>(cuda::FreeOnCuda(memory));
  }

  absl::Status CopyToDevice(const void* from, int64_t bytes,
                            void* to) override {
    const int error = cuda::CopyToCuda(from, static_cast<size_t>(bytes), to);
    return error == 0 ? absl::OkStatus() : CudaError("a copy to it", error);
  }

  absl::Status CopyWithinDevice(const void* from, int64_t bytes,
                                void* to) override {
    const int error =
        cuda::CopyWithinCuda(from, static_cast<size_t>(bytes), to);
    return error == 0 ? absl::OkStatus() : CudaError("a copy within it", error);
  }

  absl::Status CopyFromDevice(const void* from, int64_t bytes,
                              void* to) override {
    const int error = cuda::CopyFromCuda(from, static_cast<size_t>(bytes), to);
    return error == 0 ? absl::OkStatus() : CudaError("a copy from it", error);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceMemory>> MakeCudaMemory() {
  int count = 0;
  const int error = cuda::CountCudaDevices(&count);
  if (error != 0 || count == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("there is no GPU that CUDA can use (",
                     error != 0 ? cuda::CudaErrorText(error) : "no device",
                     "): install its driver, or encode on the host"));
  }
  return std::unique_ptr<DeviceMemory>(new CudaMemory());
}

absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeDeviceCodec(
    absl::string_view text, int64_t max_elements) {
  // A codec without kernels is the first thing to be told.
  DP_RETURN_IF_ERROR(cuda::MessagePlans::Parse(text).status());
  DP_ASSIGN_OR_RETURN(std::unique_ptr<DeviceMemory> memory, MakeCudaMemory());
  return MakeDeviceCodecIn(std::move(memory), text, max_elements);
}

absl::StatusOr<std::unique_ptr<DeviceBits>> MakeDeviceBits() {
  return std::unique_ptr<DeviceBits>(new cuda::LaunchedBits<CudaLauncher>());
}

absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeDeviceCodecIn(
    std::unique_ptr<DeviceMemory> memory, absl::string_view text,
    int64_t max_elements) {
  DP_ASSIGN_OR_RETURN(cuda::MessagePlans plans,
                      cuda::MessagePlans::Parse(text));
  return cuda::MessageCodec<CudaLauncher>::Create(
      std::move(plans), max_elements, std::move(memory));
}

}  // namespace deltapipe
