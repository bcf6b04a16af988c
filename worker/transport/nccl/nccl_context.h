// NcclContext: what all edges of a process share: the loaded libraries, the
// device, and those who end communicators.
//
// Made once per process, by the worker or by a test with fakes; outlives every
// edge. Thread-safe.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_CONTEXT_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_CONTEXT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/transport/nccl/cuda_library.h"
#include "worker/transport/nccl/nccl_disposal.h"
#include "worker/transport/nccl/nccl_library.h"

namespace deltapipe {

class NcclContext {
 public:
  /// FAILED_PRECONDITION if CUDA sees no device of that index.
  static absl::StatusOr<std::unique_ptr<NcclContext>> Create(NcclLibrary nccl,
                                                             CudaLibrary cuda,
                                                             int device);
  /// Loads both libraries. FAILED_PRECONDITION as of LoadNccl and LoadCuda.
  static absl::StatusOr<std::unique_ptr<NcclContext>> Load(int device);

  /// Makes the device that of the calling thread.
  absl::Status UseDevice() const;
  /// UNAVAILABLE, with CUDA's text, unless `result` is success.
  absl::Status CheckCuda(CudaResult result, const std::string& what) const;

  const NcclLibrary& nccl() const { return nccl_; }
  const CudaLibrary& cuda() const { return cuda_; }
  /// For error messages: "NCCL 2.28.9 on CUDA device 0".
  const std::string& description() const { return description_; }
  NcclDisposal* disposal() { return &disposal_; }

 private:
  NcclContext(NcclLibrary nccl, CudaLibrary cuda, int device);

  const NcclLibrary nccl_;
  const CudaLibrary cuda_;
  const int device_;
  const std::string description_;
  NcclDisposal disposal_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_CONTEXT_H_
