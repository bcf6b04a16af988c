#include "coordinator/rpc/pause_job.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {

absl::StatusOr<v1::Job> PauseJob(ControlPlane* plane,
                                 const v1::PauseJobRequest& request) {
  DP_RETURN_IF_ERROR(FindJob(plane, request.id()).status());
  const absl::Status paused = plane->jobs()->Pause(
      request.id(), request.reason().substr(0, kMaxReasonBytes));
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  if (absl::IsNotFound(paused)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "job '", request.id(), "' is ", StateName(stored.job.state()), " (",
        stored.job.reason(), "): nothing to pause"));
  }
  DP_RETURN_IF_ERROR(paused);
  return stored.job;
}

}  // namespace deltapipe
