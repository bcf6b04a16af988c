// JobService.ReadLogs.
#ifndef DELTAPIPE_COORDINATOR_RPC_READ_LOGS_H_
#define DELTAPIPE_COORDINATOR_RPC_READ_LOGS_H_

#include <functional>

#include "absl/status/status.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// Calls `send` with the lines of the job that there are, oldest first; with
/// `follow`, then with new ones until the job is finished.
///
/// Blocks, as WatchJob does. NOT_FOUND; INVALID_ARGUMENT: a negative tail;
/// UNAVAILABLE: the coordinator is shutting down.
absl::Status ReadLogs(ControlPlane* plane, const v1::ReadLogsRequest& request,
                      const std::function<bool(const v1::LogLine&)>& send,
                      const std::function<bool()>& is_cancelled);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_READ_LOGS_H_
