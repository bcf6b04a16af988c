// Memory of a device, for what a codec keeps there and for tests that carry
// tensors there and back. Thread-safe.
#ifndef DELTAPIPE_COMPRESSION_CUDA_DEVICE_MEMORY_H_
#define DELTAPIPE_COMPRESSION_CUDA_DEVICE_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deltapipe {

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;

  /// Memory of `bytes` zeros, to be freed with Free. RESOURCE_EXHAUSTED where
  /// there is no room.
  virtual absl::StatusOr<void*> Allocate(int64_t bytes) = 0;
  /// Logs what fails.
  virtual void Free(void* memory) = 0;
  /// Copies on the default stream, and waits for nothing.
  virtual absl::Status CopyWithinDevice(const void* from, int64_t bytes,
                                        void* to) = 0;
  /// Both wait for all work that was given to the device before, and name the
  /// error of a kernel that failed: INTERNAL.
  virtual absl::Status CopyToDevice(const void* from, int64_t bytes,
                                    void* to) = 0;
  virtual absl::Status CopyFromDevice(const void* from, int64_t bytes,
                                      void* to) = 0;
};

/// That of the current GPU. UNIMPLEMENTED in a build without --config=cuda,
/// FAILED_PRECONDITION where there is no GPU; both say what to do.
absl::StatusOr<std::unique_ptr<DeviceMemory>> MakeCudaMemory();

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_DEVICE_MEMORY_H_
