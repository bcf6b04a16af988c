// JobService.TraceJob.
#ifndef DELTAPIPE_COORDINATOR_RPC_TRACE_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_TRACE_JOB_H_

#include <functional>

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// Asks every worker of the job for a trace of its next steps and waits, up to
/// ten minutes, until all have come or `is_cancelled`, asked twice a second,
/// says so.
///
/// NOT_FOUND; INVALID_ARGUMENT: steps not from 1 to 100; FAILED_PRECONDITION:
/// it does not train; ABORTED: it starts anew or ends meanwhile;
/// DEADLINE_EXCEEDED, CANCELLED; RESOURCE_EXHAUSTED: too many spans.
absl::StatusOr<v1::TraceJobResponse> TraceJob(
    ControlPlane* plane, const v1::TraceJobRequest& request,
    const std::function<bool()>& is_cancelled);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_TRACE_JOB_H_
