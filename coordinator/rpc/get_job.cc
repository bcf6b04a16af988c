#include "coordinator/rpc/get_job.h"

#include <optional>

#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"

namespace deltapipe {

absl::StatusOr<v1::Job> GetJob(ControlPlane* plane,
                               const v1::GetJobRequest& request) {
  DP_ASSIGN_OR_RETURN(StoredJob stored, FindJob(plane, request.id()));
  if (!IsAtRest(stored.job.state())) {
    const std::optional<int64_t> step = plane->jobs()->LiveStep(request.id());
    if (step.has_value()) stored.job.set_step(*step);
  }
  return stored.job;
}

}  // namespace deltapipe
