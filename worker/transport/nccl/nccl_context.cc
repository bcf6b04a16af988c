#include "worker/transport/nccl/nccl_context.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {

NcclContext::NcclContext(NcclLibrary nccl, CudaLibrary cuda, int device)
    : nccl_(std::move(nccl)),
      cuda_(std::move(cuda)),
      device_(device),
      description_(absl::StrCat("NCCL ", NcclVersionText(nccl_.version),
                                " on CUDA device ", device_)),
      disposal_(&nccl_, &cuda_, device_) {}

absl::StatusOr<std::unique_ptr<NcclContext>> NcclContext::Create(
    NcclLibrary nccl, CudaLibrary cuda, int device) {
  int num_devices = 0;
  const CudaResult counted = cuda.get_device_count(&num_devices);
  if (counted != kCudaSuccess || device < 0 || device >= num_devices) {
    return absl::FailedPreconditionError(absl::StrCat(
        "CUDA has no device ", device, " (",
        counted == kCudaSuccess ? absl::StrCat("it sees ", num_devices)
                                : std::string(cuda.get_error_string(counted)),
        "): NCCL moves bytes between GPUs, so a worker needs one"));
  }
  return std::unique_ptr<NcclContext>(
      new NcclContext(std::move(nccl), std::move(cuda), device));
}

absl::StatusOr<std::unique_ptr<NcclContext>> NcclContext::Load(int device) {
  DP_ASSIGN_OR_RETURN(NcclLibrary nccl, LoadNccl());
  DP_ASSIGN_OR_RETURN(CudaLibrary cuda, LoadCuda());
  return Create(std::move(nccl), std::move(cuda), device);
}

absl::Status NcclContext::UseDevice() const {
  return CheckCuda(cuda_.set_device(device_), "select the device");
}

absl::Status NcclContext::CheckCuda(CudaResult result,
                                    const std::string& what) const {
  if (result == kCudaSuccess) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(what, " failed (", description_,
                                             "): CUDA says ",
                                             cuda_.get_error_string(result)));
}

}  // namespace deltapipe
