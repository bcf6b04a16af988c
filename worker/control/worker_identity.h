// WorkerIdentity: a worker's key and certificate: got from the coordinator with
// a token to join, renewed by an own thread after two thirds of its time, used
// for the control stream and the data channels alike. Connections that exist
// go on; new ones use the new certificate.
//
// With a folder it is kept there (`identity.pem`, 0600), and the worker comes
// back after a restart without a token. Thread-safe.
//
//   DP_ASSIGN_OR_RETURN(auto identity, WorkerIdentity::Obtain(options));
//   tcp.tls = [&] { return identity->context(); };
//   worker.credentials = [&] { return identity->credentials(); };
#ifndef DELTAPIPE_WORKER_CONTROL_WORKER_IDENTITY_H_
#define DELTAPIPE_WORKER_CONTROL_WORKER_IDENTITY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/tls/tls_context.h"

namespace grpc {
class ChannelCredentials;
}

namespace deltapipe {

struct IdentityOptions {
  std::string coordinator;  // "10.77.0.1:7707"
  /// Empty where `folder` holds an identity.
  std::string join_token;
  /// One of both: the authority as PEM, or its "sha256:...", with which it is
  /// fetched from the coordinator.
  std::string authority_pem;
  std::string authority_hash;
  std::string folder;       // empty: kept in memory only
  std::string wanted_name;  // "worker-3", or empty
  Clock* clock = Clock::Real();
};

class WorkerIdentity {
 public:
  virtual ~WorkerIdentity() = default;

  /// PERMISSION_DENIED or UNAUTHENTICATED: the coordinator refuses the token,
  /// or is another than expected. UNAVAILABLE: nobody answers.
  /// INVALID_ARGUMENT: no token, nothing to know the coordinator by, or a file
  /// that cannot be read.
  static absl::StatusOr<std::unique_ptr<WorkerIdentity>> Obtain(
      IdentityOptions options);

  /// "worker-3".
  virtual const std::string& worker_id() const = 0;
  virtual std::shared_ptr<const TlsContext> context() const = 0;
  virtual std::shared_ptr<grpc::ChannelCredentials> credentials() const = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CONTROL_WORKER_IDENTITY_H_
