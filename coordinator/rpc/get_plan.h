// JobService.GetPlan.
#ifndef DELTAPIPE_COORDINATOR_RPC_GET_PLAN_H_
#define DELTAPIPE_COORDINATOR_RPC_GET_PLAN_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// NOT_FOUND; FAILED_PRECONDITION: the job has not been planned (yet).
absl::StatusOr<v1::Plan> GetPlan(ControlPlane* plane,
                                 const v1::GetPlanRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_GET_PLAN_H_
