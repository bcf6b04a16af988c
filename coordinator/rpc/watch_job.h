// JobService.WatchJob.
#ifndef DELTAPIPE_COORDINATOR_RPC_WATCH_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_WATCH_JOB_H_

#include <functional>

#include "absl/status/status.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// Calls `send` with the stored events after `after_sequence`, in order and
/// without a gap, then (unless stored_only) with new ones, until the final
/// state has been sent.
///
/// Blocks. Returns OK then, or when `send` returns false or `is_cancelled` true
/// (asked twice a second). NOT_FOUND; INVALID_ARGUMENT: a negative sequence;
/// RESOURCE_EXHAUSTED: the reader was too slow and is cut; UNAVAILABLE: the
/// coordinator is shutting down.
absl::Status WatchJob(ControlPlane* plane, const v1::WatchJobRequest& request,
                      const std::function<bool(const v1::JobEvent&)>& send,
                      const std::function<bool()>& is_cancelled);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_WATCH_JOB_H_
