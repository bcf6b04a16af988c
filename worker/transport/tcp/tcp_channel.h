// A Channel over one connected TCP socket. Bytes are received straight into the
// Buffer that Receive hands out and sent straight from the caller's pieces.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "worker/transport/channel.h"
#include "worker/transport/tcp/socket_wait.h"

namespace deltapipe {

/// Takes over `socket`, connected and past the handshake; makes it
/// non-blocking. `peer` is what peer() says.
std::unique_ptr<Channel> CreateTcpChannel(UniqueFd socket, std::string peer,
                                          int64_t max_message_bytes);

/// TCP_NODELAY and, unless 0, the sizes of the socket's buffers; best before
/// connect or listen, so that the window scale fits. Failures are ignored: the
/// socket works without, only slower.
void TuneSocket(int fd, int buffer_bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CHANNEL_H_
