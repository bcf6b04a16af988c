// Channels inside one process: the fake of the TCP transport, with the same
// contract, back-pressure and byte counts.
//
// A LoopbackNetwork is a world of its own; transports of one network find each
// other by address. Transports and channels keep the network alive.
// Thread-safe.
//
//   LoopbackNetwork network;
//   auto a = network.CreateTransport("worker-0");
//   auto b = network.CreateTransport("worker-1");
//   auto channel = a->Connect("worker-1", "activations", deadline);
#ifndef DELTAPIPE_WORKER_TRANSPORT_LOOPBACK_LOOPBACK_TRANSPORT_H_
#define DELTAPIPE_WORKER_TRANSPORT_LOOPBACK_LOOPBACK_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/transport/channel.h"

namespace deltapipe {

struct LoopbackOptions {
  /// Bytes that Send may pile up in one direction before it blocks; a message
  /// larger than this passes alone.
  int64_t capacity_bytes = int64_t{8} << 20;
  int64_t max_message_bytes = int64_t{1} << 30;
};

class LoopbackNetwork {
 public:
  explicit LoopbackNetwork(const LoopbackOptions& options = {});
  ~LoopbackNetwork();

  /// A transport at `address`; an empty address becomes "loopback:<n>".
  /// ALREADY_EXISTS if another transport lives there.
  absl::StatusOr<std::unique_ptr<Transport>> CreateTransport(
      const std::string& address = "");

  struct State;

 private:
  // Shared with the transports, which may outlive this handle.
  std::shared_ptr<State> state_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_LOOPBACK_LOOPBACK_TRANSPORT_H_
