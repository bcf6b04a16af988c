#include "coordinator/rpc/cancel_job.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxReason = 1000;

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
  if (!plane->jobs()->Cancel(request.id(),
                             request.reason().substr(0, kMaxReason))) {
    // It has ended since.
    DP_ASSIGN_OR_RETURN(stored, FindJob(plane, request.id()));
    return AlreadyFinished(stored.job);
  }
  return stored.job;
}

}  // namespace deltapipe
