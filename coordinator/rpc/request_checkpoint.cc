#include "coordinator/rpc/request_checkpoint.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {

absl::StatusOr<v1::Job> RequestCheckpoint(
    ControlPlane* plane, const v1::RequestCheckpointRequest& request) {
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  const absl::Status asked = plane->jobs()->RequestCheckpoint(request.id());
  if (absl::IsNotFound(asked)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job '", request.id(), "' is ", StateName(stored.job.state()),
        ": a checkpoint can be asked for while it trains"));
  }
  DP_RETURN_IF_ERROR(asked);
  return stored.job;
}

}  // namespace deltapipe
