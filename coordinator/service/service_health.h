// The health service's answers (grpc.health.v1), for each service by its name.
//
//   SetServing(server.get(), true);    // after BuildAndStart
//   SetServing(server.get(), false);   // before Shutdown
#ifndef DELTAPIPE_COORDINATOR_SERVICE_SERVICE_HEALTH_H_
#define DELTAPIPE_COORDINATOR_SERVICE_SERVICE_HEALTH_H_

#include <grpcpp/server.h>

namespace deltapipe {

/// Tells the server as a whole, and JobService, TuningService and
/// ControlService by their full names, to be SERVING or NOT_SERVING. Nothing
/// without a health service; see grpc::EnableDefaultHealthCheckService.
void SetServing(grpc::Server* server, bool is_serving);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_SERVICE_HEALTH_H_
