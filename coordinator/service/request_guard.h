// RequestGuard: who may call what on a gRPC server with TLS: its credentials,
// the check before each call, and a line in the audit log after it.
//
// Clients may show a certificate, which is checked here and not in the
// handshake: so that a refusal can be explained and written down. The handshake
// has proven that they have its key. Lives longer than the server. Thread-safe.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_REQUEST_GUARD_H_
#define DELTAPIPE_COORDINATOR_SERVICE_REQUEST_GUARD_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/security/coordinator_security.h"

namespace deltapipe {

/// TLS with the coordinator's certificate, which is read again when its file is
/// replaced; every call is asked for what its rule needs. `security` outlives
/// the server.
std::shared_ptr<grpc::ServerCredentials> MakeGuardedCredentials(
    CoordinatorSecurity* security);

/// Writes the calls that change something, and their results, to the log.
std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeAuditor(CoordinatorSecurity* security);

/// Who calls `method` ("/deltapipe.v1.JobService/GetJob") in this context, as
/// the check before the call saw it.
absl::StatusOr<Caller> CallerOf(const CoordinatorSecurity& security,
                                const std::string& method,
                                const grpc::ServerContextBase& context);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_REQUEST_GUARD_H_
