// Who is at the other end of an RPC.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_PEER_HOST_H_
#define DELTAPIPE_COORDINATOR_SERVICE_PEER_HOST_H_

#include <string>

namespace deltapipe {

/// The host of gRPC's name for a peer: "10.0.0.2" of "ipv4:10.0.0.2:41233",
/// "::1" of "ipv6:%5B::1%5D:41233".
std::string PeerHost(const std::string& peer);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_PEER_HOST_H_
