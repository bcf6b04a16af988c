// JobService.GetMetrics.
#ifndef DELTAPIPE_COORDINATOR_RPC_GET_METRICS_H_
#define DELTAPIPE_COORDINATOR_RPC_GET_METRICS_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// With the newest events of the store. NOT_FOUND: no such job (names the
/// nearest id). FAILED_PRECONDITION: it has not trained yet, or not since this
/// coordinator started, or ended too long ago.
absl::StatusOr<v1::JobMetrics> GetMetrics(ControlPlane* plane,
                                          const v1::GetMetricsRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_GET_METRICS_H_
