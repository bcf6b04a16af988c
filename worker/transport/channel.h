// Channel and Transport: ordered messages of bytes between two ranks. They know
// neither tensors nor codecs.
//
// A Channel is full-duplex; one thread may send while another receives. A
// Transport is a rank's door: it listens on one address, connects to others',
// and matches the two ends of a channel by name. Implementations: loopback (in
// one process, the fake), tcp; decorators: nccl, shaped, faulty, recording. All
// pass the same conformance kit.
//
//   DP_ASSIGN_OR_RETURN(auto channel, transport->Connect(
//       peer_address, "job-7/g1/activations/0-2", Deadline::After(10s)));
//   DP_RETURN_IF_ERROR(channel->Send({header, payload}, deadline));
#ifndef DELTAPIPE_WORKER_TRANSPORT_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_CHANNEL_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "base/deadline.h"

namespace deltapipe {

using ByteSpan = absl::Span<const uint8_t>;

struct ChannelCapabilities {
  int64_t max_message_bytes = int64_t{1} << 30;
  bool is_shaped = false;
  std::string name;  // "tcp", "tls", "loopback", "shaped(tcp)"
  /// The worker that the peer has proven to be; empty where nobody proves
  /// anything: in plain text and within a process.
  std::string peer_identity;
};

/// Bytes are what went through the socket, message framing included.
struct ChannelCounters {
  int64_t messages_sent = 0;
  int64_t messages_received = 0;
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  /// For which something was on its way to the peer; 0 where nobody knows.
  double busy_seconds = 0;
  /// What the link has lately carried while it was busy; 0 where nobody knows.
  double bytes_per_second = 0;
  /// Of the connection, smoothed; 0 where nobody knows.
  double round_trip_seconds = 0;
};

class Channel {
 public:
  virtual ~Channel() = default;

  /// Sends the concatenation of `pieces` as one message, which may be empty.
  /// Blocks while the peer's window is full; the pieces are free when it
  /// returns. DEADLINE_EXCEEDED, UNAVAILABLE (the peer is gone), CANCELLED
  /// (with the reason given to Cancel), INVALID_ARGUMENT (message too large).
  /// After any error but INVALID_ARGUMENT the channel is broken: every later
  /// call returns that error.
  virtual absl::Status Send(absl::Span<const ByteSpan> pieces,
                            Deadline deadline) = 0;

  /// The next message, in the order of sending. DEADLINE_EXCEEDED leaves the
  /// channel usable; the other errors as for Send.
  virtual absl::StatusOr<Buffer> Receive(Deadline deadline) = 0;

  /// Makes blocked and later calls of both directions return `reason`, and
  /// closes the connection. Callable from any thread, more than once.
  virtual void Cancel(absl::Status reason) = 0;

  virtual ChannelCapabilities capabilities() const = 0;
  virtual ChannelCounters counters() const = 0;
  /// The peer for error messages: "10.77.0.2:41233 (job-7/g1/activations/0-2)".
  virtual std::string peer() const = 0;
};

/// How often a Connect looks whether it is cancelled.
inline constexpr std::chrono::milliseconds kCancelPoll(100);

class Transport {
 public:
  virtual ~Transport() = default;

  /// Where peers connect to, "10.77.0.2:41233".
  virtual std::string address() const = 0;

  /// Opens the channel `name` to the transport at `address`; retries until the
  /// deadline while nobody listens there. The name (at most 200 bytes) must be
  /// awaited there by Accept, before or after.
  /// CANCELLED soon after `is_cancelled` (null: never) becomes true.
  virtual absl::StatusOr<std::unique_ptr<Channel>> Connect(
      const std::string& address, const std::string& name, Deadline deadline,
      const std::atomic<bool>* is_cancelled) = 0;
  absl::StatusOr<std::unique_ptr<Channel>> Connect(const std::string& address,
                                                   const std::string& name,
                                                   Deadline deadline) {
    return Connect(address, name, deadline, nullptr);
  }

  /// The other end of a Connect under `name`. Connections under names that
  /// nobody awaits are held, at most 256 of them, oldest refused first.
  virtual absl::StatusOr<std::unique_ptr<Channel>> Accept(
      const std::string& name, Deadline deadline) = 0;

  /// Makes blocked and later calls return `reason`. Channels that were handed
  /// out live on.
  virtual void Cancel(absl::Status reason) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_CHANNEL_H_
