// The address that a server listens on: "127.0.0.1:0", "[::1]:50051",
// "0.0.0.0:1".
#ifndef DELTAPIPE_COORDINATOR_SERVICE_LISTEN_ADDRESS_H_
#define DELTAPIPE_COORDINATOR_SERVICE_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deltapipe {

struct ListenAddress {
  std::string host;  // without brackets
  int port = 0;
  std::string ToString() const;
};

/// INVALID_ARGUMENT: not HOST:PORT, or no port number.
absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& text);

/// Whether only this machine can reach the host: localhost, 127.x.x.x, ::1.
bool IsLoopback(const std::string& host);

/// Why `address` cannot be listened on, found by trying: FAILED_PRECONDITION if
/// the port is in use, INVALID_ARGUMENT if the host is not one of this machine,
/// PERMISSION_DENIED, each with its remedy; OK if it can be.
absl::Status CheckListenAddress(const ListenAddress& address);

/// The same, and PERMISSION_DENIED if others could reach the address, unless
/// `insecure`.
absl::Status CheckMayListen(const ListenAddress& address, bool insecure);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_LISTEN_ADDRESS_H_
