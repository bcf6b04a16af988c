// JobService.GetJob.
#ifndef DELTAPIPE_COORDINATOR_RPC_GET_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_GET_JOB_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// NOT_FOUND: no such job (names the nearest id).
absl::StatusOr<v1::Job> GetJob(ControlPlane* plane,
                               const v1::GetJobRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_GET_JOB_H_
