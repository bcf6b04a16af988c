// JobService.SubmitJob.
#ifndef DELTAPIPE_COORDINATOR_RPC_SUBMIT_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_SUBMIT_JOB_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// Fields that are absent from the spec get their defaults first.
/// INVALID_ARGUMENT: every violation of the spec, one a line; of a job that is
/// to go on (resume) also what keeps it from that, by the jobs in the store, or
/// that it names no folder. Such a job keeps the layers' cut of what it goes on
/// from. With validate_only the answer is the job as it would be, without an
/// id.
absl::StatusOr<v1::Job> SubmitJob(ControlPlane* plane,
                                  const v1::SubmitJobRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_SUBMIT_JOB_H_
