#include "coordinator/rpc/get_plan.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {

absl::StatusOr<v1::Plan> GetPlan(ControlPlane* plane,
                                 const v1::GetPlanRequest& request) {
  DP_ASSIGN_OR_RETURN(StoredJob stored, FindJob(plane, request.id()));
  if (stored.plan.has_value()) return *stored.plan;
  return absl::FailedPreconditionError(absl::StrCat(
      "job '", request.id(), "' has no plan: it is ",
      StateName(stored.job.state()), " (", stored.job.reason(), ")"));
}

}  // namespace deltapipe
