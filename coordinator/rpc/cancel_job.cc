#include "coordinator/rpc/cancel_job.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

absl::Status AlreadyFinished(const v1::Job& job) {
  return absl::FailedPreconditionError(
      absl::StrCat("job '", job.id(), "' is ", StateName(job.state()),
                   " already (", job.reason(), "): nothing to cancel"));
}

}  // namespace

absl::StatusOr<v1::Job> CancelJob(ControlPlane* plane,
                                  const v1::CancelJobRequest& request) {
  DP_ASSIGN_OR_RETURN(StoredJob stored, FindJob(plane, request.id()));
  if (IsFinished(stored.job.state())) return AlreadyFinished(stored.job);
  const std::string reason = request.reason().substr(0, kMaxReasonBytes);
  const absl::Status cancelled = plane->jobs()->Cancel(request.id(), reason);
  DP_ASSIGN_OR_RETURN(stored, FindJob(plane, request.id()));
  if (absl::IsNotFound(cancelled)) {
    // It has ended since, or is paused and has nobody to tell.
    if (!IsFinished(stored.job.state())) {
      return plane->jobs()->CancelPaused(request.id(), reason);
    }
    return AlreadyFinished(stored.job);
  }
  DP_RETURN_IF_ERROR(cancelled);
  return stored.job;
}

}  // namespace deltapipe
