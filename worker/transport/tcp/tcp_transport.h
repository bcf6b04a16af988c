// Channels over TCP: one listening port per transport, one connection per
// channel, matched by the name in the handshake (handshake.h).
//
// Connect returns as soon as the peer's transport has answered; it does not
// wait for the Accept of that name. So a thread may Connect to each of its
// peers first and Accept afterwards. An own thread takes connections in;
// sending and receiving happen on the callers' threads. Resolving a host name
// is the one wait that Cancel cannot cut short; addresses in numbers need none.
//
//   DP_ASSIGN_OR_RETURN(auto transport, CreateTcpTransport("10.77.0.1:0", {}));
//   transport->address();  // "10.77.0.1:41233"
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_TRANSPORT_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_TRANSPORT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/tls/tls_context.h"
#include "worker/transport/channel.h"

namespace deltapipe {

struct TcpOptions {
  /// A message that says it is larger breaks the channel before anything is
  /// allocated.
  int64_t max_message_bytes = int64_t{1} << 30;
  /// Of each direction of each connection, capped by the system's limit
  /// (net.core.{r,w}mem_max); 0 leaves it to the system.
  int socket_buffer_bytes = 4 << 20;
  /// The host that address() names, where peers cannot use the one listened on
  /// (0.0.0.0, or behind a translation of addresses). Empty: the one listened
  /// on.
  std::string advertised_host;
  /// A connection that has not said hello by then is closed.
  Nanos handshake_within{std::chrono::seconds(10)};
  /// When there, all channels are mutual TLS 1.3, and capabilities() names the
  /// peer's worker. Asked for each new connection, from any thread: channels
  /// that exist go on with what they began with.
  std::function<std::shared_ptr<const TlsContext>()> tls;
};

/// Listens on "host:port" ("[host]:port" for IPv6); port 0 takes a free one.
/// INVALID_ARGUMENT for an address that cannot be parsed or resolved,
/// ALREADY_EXISTS for a port in use, FAILED_PRECONDITION for an address that is
/// not this machine's or not permitted.
absl::StatusOr<std::unique_ptr<Transport>> CreateTcpTransport(
    const std::string& listen_address, const TcpOptions& options = {});

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_TRANSPORT_H_
