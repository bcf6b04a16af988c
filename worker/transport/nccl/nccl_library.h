// NcclLibrary: NCCL's functions, as this process has loaded them; or a fake's
// (testing/fake_gpu.h). Nothing of NCCL is linked.
//
// What each function does is in NCCL's documentation. Communicators here are
// not blocking: any call may answer kNcclInProgress, and comm_get_async_error
// is then asked until it says something else.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_LIBRARY_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_LIBRARY_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/transport/nccl/nccl_abi.h"

namespace deltapipe {

/// The oldest that is taken: the first in which several communicators can be
/// aborted as one group.
inline constexpr int kOldestNcclVersion = 22200;

struct NcclLibrary {
  std::string path;
  int version = 0;  // 22809 is 2.28.9

  std::function<NcclResult(int*)> get_version;
  std::function<NcclResult(NcclUniqueId*)> get_unique_id;
  std::function<NcclResult(NcclCommunicator*, int, NcclUniqueId, int,
                           NcclConfig*)>
      comm_init_rank_config;
  std::function<NcclResult(NcclCommunicator, NcclResult*)> comm_get_async_error;
  std::function<NcclResult(NcclCommunicator)> comm_finalize;
  std::function<NcclResult(NcclCommunicator)> comm_destroy;
  std::function<NcclResult(NcclCommunicator)> comm_abort;
  std::function<NcclResult(const void*, size_t, NcclDataType, int,
                           NcclCommunicator, CudaStream)>
      send;
  std::function<NcclResult(void*, size_t, NcclDataType, int, NcclCommunicator,
                           CudaStream)>
      recv;
  std::function<NcclResult()> group_start;
  std::function<NcclResult()> group_end;
  std::function<const char*(NcclResult)> get_error_string;
  std::function<const char*(NcclCommunicator)> get_last_error;
};

/// Where NCCL may be: by its name, and beside a LibTorch of this process.
std::vector<std::string> NcclCandidates();

/// FAILED_PRECONDITION, with the remedy, if there is none or it is too old.
absl::StatusOr<NcclLibrary> LoadNccl(
    const std::vector<std::string>& candidates = NcclCandidates());

/// 22809 -> "2.28.9".
std::string NcclVersionText(int version);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_LIBRARY_H_
