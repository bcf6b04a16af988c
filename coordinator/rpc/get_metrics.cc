#include "coordinator/rpc/get_metrics.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr int kEventPage = 500;

absl::Status NoFigures(const v1::Job& job) {
  const std::string about =
      absl::StrCat("there are no figures of job '", job.id(), "': it is ",
                   StateName(job.state()));
  if (IsFinished(job.state())) {
    return absl::FailedPreconditionError(
        absl::StrCat(about,
                     ", and either never trained or ended long ago: 'deltapipe "
                     "describe ",
                     job.id(), "' shows its result"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      about,
      " and has not trained since this coordinator started: try again "
      "once it runs"));
}

/// Hands the figures those events of the store that they do not have yet.
absl::Status ReadEvents(ControlPlane* plane, const std::string& job_id) {
  while (true) {
    DP_ASSIGN_OR_RETURN(
        const std::vector<v1::JobEvent> events,
        plane->store()->ReadEvents(job_id, plane->figures()->LastEvent(job_id),
                                   kEventPage));
    plane->figures()->AddEvents(job_id, events);
    if (static_cast<int>(events.size()) < kEventPage) return absl::OkStatus();
  }
}

}  // namespace

absl::StatusOr<v1::JobMetrics> GetMetrics(
    ControlPlane* plane, const v1::GetMetricsRequest& request) {
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  // Before the events are read: where there are no figures they are not kept.
  if (!plane->figures()->Get(request.id()).has_value()) {
    return NoFigures(stored.job);
  }
  DP_RETURN_IF_ERROR(ReadEvents(plane, request.id()));
  std::optional<v1::JobMetrics> metrics = plane->figures()->Get(request.id());
  if (!metrics.has_value()) return NoFigures(stored.job);
  return *std::move(metrics);
}

}  // namespace deltapipe
