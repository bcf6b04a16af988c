// RequestCheckpoint: see proto/deltapipe/v1/admin.proto.
#ifndef DELTAPIPE_COORDINATOR_RPC_REQUEST_CHECKPOINT_H_
#define DELTAPIPE_COORDINATOR_RPC_REQUEST_CHECKPOINT_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

absl::StatusOr<v1::Job> RequestCheckpoint(
    ControlPlane* plane, const v1::RequestCheckpointRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_REQUEST_CHECKPOINT_H_
