// The part of NCCL's C interface that is used here, declared once more, so that
// a build needs neither nccl.h nor a CUDA toolkit: the library is loaded where
// there is one (nccl_library.h). nccl_abi_test proves each line against the
// real header where that is installed.
//
// The configuration is laid out as of NCCL 2.17: every later version takes one
// that says so, and gives what it lacks its default.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_ABI_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_ABI_H_

#include <climits>
#include <cstddef>

namespace deltapipe {

/// ncclComm_t.
using NcclCommunicator = struct NcclCommunicatorObject*;
/// cudaStream_t and cudaEvent_t.
using CudaStream = struct CudaStreamObject*;
using CudaEvent = struct CudaEventObject*;

/// ncclResult_t.
enum NcclResult : int {
  kNcclSuccess = 0,
  kNcclUnhandledCudaError = 1,
  kNcclSystemError = 2,
  kNcclInternalError = 3,
  kNcclInvalidArgument = 4,
  kNcclInvalidUsage = 5,
  kNcclRemoteError = 6,
  kNcclInProgress = 7,
};

/// ncclDataType_t; payloads are bytes.
enum NcclDataType : int { kNcclUint8 = 1 };

inline constexpr size_t kNcclUniqueIdBytes = 128;
/// ncclUniqueId; passed by value.
struct NcclUniqueId {
  char internal[kNcclUniqueIdBytes];
};

inline constexpr unsigned kNcclConfigMagic = 0xcafebeef;
inline constexpr unsigned kNcclConfigVersion = 21700;
inline constexpr int kNcclUndefined = INT_MIN;

/// The beginning of ncclConfig_t.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = kNcclConfigMagic;
  unsigned version = kNcclConfigVersion;
  int blocking = kNcclUndefined;
  int cga_cluster_size = kNcclUndefined;
  int min_ctas = kNcclUndefined;
  int max_ctas = kNcclUndefined;
  const char* net_name = nullptr;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_ABI_H_
