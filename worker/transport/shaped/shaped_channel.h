// A decorator that sends through a LinkShaper; what is received passes through.
//
// Send copies the message into a queue and returns, so that the caller computes
// while the link is busy; it blocks while the queue is full. An own thread
// hands each message to the channel below when it would have arrived.
// Destroying the channel first lets the queue drain (Cancel does not); a peer
// that stops reading holds that up for at most a second longer than the link
// needs.
#ifndef DELTAPIPE_WORKER_TRANSPORT_SHAPED_SHAPED_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_SHAPED_SHAPED_CHANNEL_H_

#include <memory>

#include "worker/transport/channel.h"
#include "worker/transport/shaped/link_shaper.h"

namespace deltapipe {

/// The link is shared with the other channels between the same two workers. A
/// link that holds nothing back leaves the channel as it is, unless its rate
/// may change.
std::unique_ptr<Channel> ShapeChannel(std::unique_ptr<Channel> channel,
                                      std::shared_ptr<LinkShaper> link,
                                      bool may_change = false);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_SHAPED_SHAPED_CHANNEL_H_
