// The connecting side of the TCP transport: attempts, with growing pauses,
// until the peer answers the handshake.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CONNECTOR_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CONNECTOR_H_

#include <atomic>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "worker/transport/tcp/socket_wait.h"

namespace deltapipe {

/// "10.77.0.2:41233" -> {"10.77.0.2", "41233"}; "[::1]:80" -> {"::1", "80"}.
absl::StatusOr<std::pair<std::string, std::string>> SplitHostPort(
    const std::string& address);

/// A connected socket on which the peer has answered ok. ABORTED as soon as
/// `wake_fd` is readable; DEADLINE_EXCEEDED with the last attempt's error;
/// FAILED_PRECONDITION if the peer refuses or speaks something else; CANCELLED
/// soon after `is_cancelled` (may be null) becomes true.
absl::StatusOr<UniqueFd> ConnectTcp(const std::string& address,
                                    const std::string& channel_name,
                                    int socket_buffer_bytes, int wake_fd,
                                    Deadline deadline,
                                    const std::atomic<bool>* is_cancelled);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CONNECTOR_H_
