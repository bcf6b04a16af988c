// JobService.CancelJob.
#ifndef DELTAPIPE_COORDINATOR_RPC_CANCEL_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_CANCEL_JOB_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// Asks the job to end; what came of it shows in its events. Idempotent while
/// the job is not finished. NOT_FOUND; FAILED_PRECONDITION: it is finished.
absl::StatusOr<v1::Job> CancelJob(ControlPlane* plane,
                                  const v1::CancelJobRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_CANCEL_JOB_H_
