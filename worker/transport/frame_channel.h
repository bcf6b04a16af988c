// FrameChannel: frames over a Channel, each delivered once, in order and whole,
// whatever the channel below loses, repeats, reorders or damages.
//
// The sender numbers its frames and keeps the bytes of each until it is
// acknowledged (cumulatively); a gap or a bad checksum is answered with a
// request, and the same bytes go again; a frame without an answer goes again
// after a time-out that adapts to the measured round trip. A frame of another
// generation or version is refused, counted and never delivered. The receiver
// checks the header before it allocates or touches the payload.
//
// One thread may send while another receives. Calls have deadlines; Cancel
// wakes both. An own thread reads the channel below; it ends before the
// destructor returns.
#ifndef DELTAPIPE_WORKER_TRANSPORT_FRAME_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_FRAME_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "base/deadline.h"
#include "worker/transport/channel.h"
#include "worker/transport/frame.h"

namespace deltapipe {

struct FrameChannelOptions {
  uint64_t generation = 1;
  int64_t max_payload_bytes = int64_t{256} << 20;  // fixed by the plan
  /// Unacknowledged bytes that Send may pile up before it blocks.
  int64_t window_bytes = int64_t{64} << 20;
  /// The longest time before unanswered frames go again.
  Nanos resend_after{std::chrono::milliseconds(500)};
  bool verify_checksums = true;  // off only to measure their cost
  Clock* clock = Clock::Real();
};

struct FrameCounters {
  int64_t frames_sent = 0;
  int64_t frames_received = 0;
  int64_t frames_resent = 0;
  int64_t duplicates_dropped = 0;
  int64_t bad_checksums = 0;
  int64_t gaps = 0;
  int64_t refused_generation = 0;
  int64_t refused_version = 0;
  int64_t refused_size = 0;
};

class FrameChannel {
 public:
  virtual ~FrameChannel() = default;

  static absl::StatusOr<std::unique_ptr<FrameChannel>> Create(
      std::unique_ptr<Channel> channel, const FrameChannelOptions& options);

  /// Sends a frame whose payload is the concatenation of `pieces`; returns when
  /// the bytes are handed to the channel below and kept for resending.
  virtual absl::Status Send(const FrameHeader& header,
                            absl::Span<const ByteSpan> pieces,
                            Deadline deadline) = 0;
  /// The next frame. Errors as for Channel::Receive.
  virtual absl::StatusOr<Frame> Receive(Deadline deadline) = 0;
  /// Waits until everything sent has been acknowledged.
  virtual absl::Status Flush(Deadline deadline) = 0;
  virtual void Cancel(absl::Status reason) = 0;
  virtual FrameCounters counters() const = 0;
  virtual ChannelCounters channel_counters() const = 0;
  virtual std::string peer() const = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_FRAME_CHANNEL_H_
