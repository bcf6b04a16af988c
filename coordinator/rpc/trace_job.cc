#include "coordinator/rpc/trace_job.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/status_macros.h"
#include "coordinator/metrics/chrome_trace.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr int kMaxSteps = 100;
constexpr std::chrono::minutes kPatience(10);

absl::Status NotTraining(const v1::Job& job) {
  return absl::FailedPreconditionError(
      absl::StrCat("job '", job.id(), "' is ", StateName(job.state()),
                   ": only a job that trains can be traced"));
}

}  // namespace

absl::StatusOr<v1::TraceJobResponse> TraceJob(
    ControlPlane* plane, const v1::TraceJobRequest& request,
    const std::function<bool()>& is_cancelled) {
  if (request.steps() < 1 || request.steps() > kMaxSteps) {
    return absl::InvalidArgumentError(absl::StrCat(
        "steps: expected 1 to ", kMaxSteps, ", got ", request.steps()));
  }
  // Before the job is looked at: from here on no change of it is missed.
  const auto gathering = plane->traces()->Gather(request.id());
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  if (stored.job.state() != v1::JOB_STATE_RUNNING || !stored.plan.has_value()) {
    return NotTraining(stored.job);
  }
  const absl::Status asked =
      plane->jobs()->RequestTrace(request.id(), request.steps());
  // It has ended since.
  if (absl::IsNotFound(asked)) {
    return absl::AbortedError(absl::StrCat(
        "job '", request.id(), "' came to rest before it was traced"));
  }
  DP_RETURN_IF_ERROR(asked);
  const int num_traces =
      stored.plan->num_stages() * stored.plan->num_replicas() * request.steps();
  DP_ASSIGN_OR_RETURN(
      const std::vector<RankTrace> traces,
      gathering->Await(static_cast<size_t>(num_traces),
                       Deadline::After(kPatience), is_cancelled));
  v1::TraceJobResponse response;
  response.set_chrome_json(ChromeTrace(traces));
  return response;
}

}  // namespace deltapipe
