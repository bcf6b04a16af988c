// ClientSecurity: how the command line knows a coordinator with TLS, and how it
// shows who is calling. Secrets come from files, never from the command line,
// which every user of the machine can read.
#ifndef DELTAPIPE_COORDINATOR_CLI_CLIENT_SECURITY_H_
#define DELTAPIPE_COORDINATOR_CLI_CLIENT_SECURITY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace grpc {
class ChannelCredentials;
}

namespace deltapipe {

struct ClientSecurity {
  std::string ca_file;     // certificate of the coordinator's authority
  std::string ca_hash;     // its "sha256:...", instead
  std::string token_file;  // of the caller

  /// Whether the coordinator is spoken to over TLS.
  bool has_tls() const { return !ca_file.empty() || !ca_hash.empty(); }
};

/// What this process's command line says (--ca-file, --ca-hash, --token-file):
/// written while it is parsed, only read afterwards.
ClientSecurity* CommandLineSecurity();

/// Plain text where `security` is empty. INVALID_ARGUMENT: a token without TLS,
/// which would show it to the network, or a bad hash. NOT_FOUND,
/// PERMISSION_DENIED: files; or another coordinator than the hash says.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeClientCredentials(
    const std::string& address, const ClientSecurity& security);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_CLIENT_SECURITY_H_
