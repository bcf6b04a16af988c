// Counts what a gRPC server answers, by method and status code.
//
// An interceptor of every call that a service of ours gets: not of those that
// are refused before (request_guard.h), which the audit log has.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_RPC_METER_H_
#define DELTAPIPE_COORDINATOR_SERVICE_RPC_METER_H_

#include <grpcpp/support/server_interceptor.h>

#include <memory>

#include "coordinator/metrics/rpc_counts.h"

namespace deltapipe {

/// `counts` outlives the server. Methods of other services (health, reflection)
/// and unknown ones are counted as "other".
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcMeter(RpcCounts* counts);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_RPC_METER_H_
