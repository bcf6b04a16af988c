// The two ends of one in-process channel.
#ifndef DELTAPIPE_WORKER_TRANSPORT_LOOPBACK_LOOPBACK_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_LOOPBACK_LOOPBACK_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "worker/transport/channel.h"

namespace deltapipe {

/// Creates both ends; `peer_of_first` is what first->peer() says.
std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>
CreateLoopbackChannelPair(int64_t capacity_bytes, int64_t max_message_bytes,
                          const std::string& peer_of_first,
                          const std::string& peer_of_second);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_LOOPBACK_LOOPBACK_CHANNEL_H_
