// A Channel over one connected TCP socket, with or without TLS. Bytes are
// received straight into the Buffer that Receive hands out and sent straight
// from the caller's pieces.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "worker/transport/channel.h"
#include "worker/transport/tcp/byte_stream.h"

namespace deltapipe {

/// `stream` has shaken hands, and the peer has answered. `peer` is what peer()
/// says.
std::unique_ptr<Channel> CreateTcpChannel(std::unique_ptr<ByteStream> stream,
                                          std::string peer,
                                          int64_t max_message_bytes);

/// TCP_NODELAY and, unless 0, the sizes of the socket's buffers; best before
/// connect or listen, so that the window scale fits. Failures are ignored: the
/// socket works without, only slower.
void TuneSocket(int fd, int buffer_bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_CHANNEL_H_
