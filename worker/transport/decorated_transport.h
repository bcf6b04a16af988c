// A Transport whose channels are wrapped, for the decorators: shaped, faulty,
// recording.
//
//   auto shaped = DecorateTransport(std::move(tcp),
//       [link](std::unique_ptr<Channel> channel, const ChannelOrigin& origin) {
//         return ShapeChannel(std::move(channel), link);
//       });
#ifndef DELTAPIPE_WORKER_TRANSPORT_DECORATED_TRANSPORT_H_
#define DELTAPIPE_WORKER_TRANSPORT_DECORATED_TRANSPORT_H_

#include <functional>
#include <memory>
#include <string>

#include "worker/transport/channel.h"

namespace deltapipe {

struct ChannelOrigin {
  std::string name;
  bool is_connected = false;  // by us; else accepted
  std::string address;        // of the peer, if connected
};

/// Wraps each channel; may be called from several threads at once.
using TransportDecorator = std::function<std::unique_ptr<Channel>(
    std::unique_ptr<Channel> channel, const ChannelOrigin& origin)>;

std::unique_ptr<Transport> DecorateTransport(
    std::unique_ptr<Transport> transport, TransportDecorator decorate);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_DECORATED_TRANSPORT_H_
