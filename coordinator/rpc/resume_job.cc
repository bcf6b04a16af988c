#include "coordinator/rpc/resume_job.h"

#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"

namespace deltapipe {

absl::StatusOr<v1::Job> ResumeJob(ControlPlane* plane,
                                  const v1::ResumeJobRequest& request) {
  DP_RETURN_IF_ERROR(FindJob(plane, request.id()).status());
  return plane->jobs()->Resume(request.id());
}

}  // namespace deltapipe
