// CudaLibrary: the few functions of the CUDA run time that moving bytes takes,
// as this process has loaded them; or a fake's (testing/fake_gpu.h). Nothing of
// CUDA is linked, and a run time that is loaded already, as by LibTorch, is
// shared.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_CUDA_LIBRARY_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_CUDA_LIBRARY_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/transport/nccl/nccl_abi.h"

namespace deltapipe {

/// cudaError_t; any other is an error.
enum CudaResult : int { kCudaSuccess = 0, kCudaNotReady = 600 };

/// cudaMemcpyKind.
enum CudaCopy : int { kCudaHostToDevice = 1, kCudaDeviceToHost = 2 };

inline constexpr unsigned kCudaStreamNonBlocking = 1;
inline constexpr unsigned kCudaEventDisableTiming = 2;

struct CudaLibrary {
  std::string path;

  std::function<CudaResult(int*)> get_device_count;
  std::function<CudaResult(int)> set_device;  // of the calling thread
  std::function<CudaResult(void**, size_t)> malloc;
  std::function<CudaResult(void*)> free;
  std::function<CudaResult(void**, size_t, unsigned)> host_alloc;
  std::function<CudaResult(void*)> free_host;
  std::function<CudaResult(CudaStream*, unsigned)> stream_create_with_flags;
  std::function<CudaResult(CudaStream)> stream_destroy;
  std::function<CudaResult(void*, const void*, size_t, CudaCopy, CudaStream)>
      memcpy_async;
  std::function<CudaResult(CudaEvent*, unsigned)> event_create_with_flags;
  std::function<CudaResult(CudaEvent, CudaStream)> event_record;
  std::function<CudaResult(CudaEvent)> event_query;
  std::function<CudaResult(CudaEvent)> event_destroy;
  /// Also forgets it, for the calling thread.
  std::function<CudaResult()> get_last_error;
  std::function<const char*(CudaResult)> get_error_string;
};

/// Where CUDA's run time may be: by its names, and beside a LibTorch of this
/// process.
std::vector<std::string> CudaCandidates();

/// FAILED_PRECONDITION, with the remedy, if there is none.
absl::StatusOr<CudaLibrary> LoadCuda(
    const std::vector<std::string>& candidates = CudaCandidates());

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_CUDA_LIBRARY_H_
