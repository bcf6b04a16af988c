// JobService.ListJobs: newest first, in pages.
#ifndef DELTAPIPE_COORDINATOR_RPC_LIST_JOBS_H_
#define DELTAPIPE_COORDINATOR_RPC_LIST_JOBS_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// INVALID_ARGUMENT: a negative page size, or a token that this service did not
/// give. The page size is 50 if 0, at most 500. A job that is submitted while
/// one turns the pages neither shows up nor shifts them.
absl::StatusOr<v1::ListJobsResponse> ListJobs(
    ControlPlane* plane, const v1::ListJobsRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_LIST_JOBS_H_
