// DrainWorker: see proto/deltapipe/v1/admin.proto.
#ifndef DELTAPIPE_COORDINATOR_RPC_DRAIN_WORKER_H_
#define DELTAPIPE_COORDINATOR_RPC_DRAIN_WORKER_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// The worker as it was when it was asked to leave.
absl::StatusOr<v1::Worker> DrainWorker(ControlPlane* plane,
                                       const v1::DrainWorkerRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_DRAIN_WORKER_H_
