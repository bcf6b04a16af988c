#include "worker/transport/nccl/cuda_library.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/transport/nccl/shared_library.h"

namespace deltapipe {
namespace {

absl::Status FindAll(const SharedLibrary& library, CudaLibrary* cuda) {
  DP_RETURN_IF_ERROR(
      library.Find("cudaGetDeviceCount", &cuda->get_device_count));
  DP_RETURN_IF_ERROR(library.Find("cudaSetDevice", &cuda->set_device));
  DP_RETURN_IF_ERROR(library.Find("cudaMalloc", &cuda->malloc));
  DP_RETURN_IF_ERROR(library.Find("cudaFree", &cuda->free));
  DP_RETURN_IF_ERROR(library.Find("cudaHostAlloc", &cuda->host_alloc));
  DP_RETURN_IF_ERROR(library.Find("cudaFreeHost", &cuda->free_host));
  DP_RETURN_IF_ERROR(library.Find("cudaStreamCreateWithFlags",
                                  &cuda->stream_create_with_flags));
  DP_RETURN_IF_ERROR(library.Find("cudaStreamDestroy", &cuda->stream_destroy));
  DP_RETURN_IF_ERROR(library.Find("cudaMemcpyAsync", &cuda->memcpy_async));
  DP_RETURN_IF_ERROR(
      library.Find("cudaEventCreateWithFlags", &cuda->event_create_with_flags));
  DP_RETURN_IF_ERROR(library.Find("cudaEventRecord", &cuda->event_record));
  DP_RETURN_IF_ERROR(library.Find("cudaEventQuery", &cuda->event_query));
  DP_RETURN_IF_ERROR(library.Find("cudaEventDestroy", &cuda->event_destroy));
  DP_RETURN_IF_ERROR(library.Find("cudaGetLastError", &cuda->get_last_error));
  return library.Find("cudaGetErrorString", &cuda->get_error_string);
}

}  // namespace

std::vector<std::string> CudaCandidates() {
  std::vector<std::string> candidates = {"libcudart.so.13", "libcudart.so.12"};
  const std::string torch = FolderOfLoadedLibrary("libc10.so");
  if (!torch.empty()) {
    const std::string wheels = absl::StrCat(torch, "/../../nvidia/");
    candidates.push_back(absl::StrCat(wheels, "cu13/lib/libcudart.so.13"));
    candidates.push_back(
        absl::StrCat(wheels, "cuda_runtime/lib/libcudart.so.12"));
  }
  return candidates;
}

absl::StatusOr<CudaLibrary> LoadCuda(
    const std::vector<std::string>& candidates) {
  const auto library = SharedLibrary::Open(candidates);
  if (!library.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the CUDA run time cannot be loaded (", library.status().message(),
        "): install libcudart.so.13 or libcudart.so.12 where the "
        "loader finds it"));
  }
  CudaLibrary cuda;
  cuda.path = library->path();
  const absl::Status found = FindAll(*library, &cuda);
  if (found.ok()) return cuda;
  return absl::FailedPreconditionError(
      absl::StrCat(found.message(), ": install the run time of CUDA 12 or 13"));
}

}  // namespace deltapipe
