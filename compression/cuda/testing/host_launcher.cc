#include "compression/cuda/testing/host_launcher.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "compression/cuda/launched_bits.h"
#include "compression/cuda/message_codec.h"

namespace deltapipe {
namespace {

class HostMemory final : public DeviceMemory {
 public:
  absl::StatusOr<void*> Allocate(int64_t bytes) override {
    void* const memory = std::calloc(static_cast<size_t>(bytes) + 1, 1);
    if (memory == nullptr) return absl::ResourceExhaustedError("no memory");
    return memory;
  }
  void Free(void* memory) override { std::free(memory); }
  absl::Status CopyToDevice(const void* from, int64_t bytes,
                            void* to) override {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  absl::Status CopyWithinDevice(const void* from, int64_t bytes,
                                void* to) override {
    return CopyToDevice(from, bytes, to);
  }
  absl::Status CopyFromDevice(const void* from, int64_t bytes,
                              void* to) override {
    return CopyToDevice(from, bytes, to);
  }
};

}  // namespace

std::unique_ptr<DeviceMemory> MakeHostMemory() {
  return std::make_unique<HostMemory>();
}

absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeHostLaunchedCodec(
    absl::string_view text, int64_t max_elements) {
  return MakeHostLaunchedCodecIn(MakeHostMemory(), text, max_elements);
}

absl::StatusOr<std::unique_ptr<DeviceCodec>> MakeHostLaunchedCodecIn(
    std::unique_ptr<DeviceMemory> memory, absl::string_view text,
    int64_t max_elements) {
  DP_ASSIGN_OR_RETURN(cuda::MessagePlans plans,
                      cuda::MessagePlans::Parse(text));
  return cuda::MessageCodec<HostLauncher>::Create(
      std::move(plans), max_elements, std::move(memory));
}

std::unique_ptr<DeviceBits> MakeHostLaunchedBits() {
  return std::make_unique<cuda::LaunchedBits<HostLauncher>>();
}

}  // namespace deltapipe
