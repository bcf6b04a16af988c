// The connecting side of the TCP transport: attempts, with growing pauses,
// until the peer answers the handshake.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CONNECTOR_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CONNECTOR_H_

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/tls/tls_context.h"
#include "worker/transport/tcp/byte_stream.h"

namespace deltapipe {

/// "10.77.0.2:41233" -> {"10.77.0.2", "41233"}; "[::1]:80" -> {"::1", "80"}.
absl::StatusOr<std::pair<std::string, std::string>> SplitHostPort(
    const std::string& address);

struct ConnectOptions {
  int socket_buffer_bytes = 0;
  /// Null: plain text.
  std::shared_ptr<const TlsContext> tls;
  int wake_fd = -1;
  const std::atomic<bool>* is_cancelled = nullptr;
};

/// A connected stream on which the peer has answered ok. ABORTED as soon as
/// `wake_fd` is readable; DEADLINE_EXCEEDED with the last attempt's error;
/// FAILED_PRECONDITION if the peer refuses or speaks something else;
/// PERMISSION_DENIED if one side does not accept the other's certificate;
/// CANCELLED soon after `is_cancelled` (may be null) becomes true.
absl::StatusOr<std::unique_ptr<ByteStream>> ConnectTcp(
    const std::string& address, const std::string& channel_name,
    const ConnectOptions& options, Deadline deadline);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CONNECTOR_H_
