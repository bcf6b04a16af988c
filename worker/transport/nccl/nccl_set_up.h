// How the two ends of a channel come to a pair of edges: over the control lane
// they compare what they are, the lower rank makes the unique ids of both
// communicators and sends them, and both join one after the other, the lower
// rank's sending edge first.
//
// Called by WrapWithNccl, which says what the errors are.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_SET_UP_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_SET_UP_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "worker/transport/nccl/control_lane.h"
#include "worker/transport/nccl/nccl_context.h"
#include "worker/transport/nccl/nccl_edge.h"

namespace deltapipe {

struct NcclEdgePair {
  std::unique_ptr<NcclEdge> out;
  std::unique_ptr<NcclEdge> in;
};

struct NcclSetUpOptions {
  bool is_lower_rank = false;
  int64_t chunk_bytes = 0;
  const std::atomic<bool>* is_cancelled = nullptr;
};

absl::StatusOr<NcclEdgePair> SetUpNccl(ControlLane* lane, NcclContext* context,
                                       const NcclSetUpOptions& options,
                                       Deadline deadline);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_SET_UP_H_
