// ControlLane: the channel below an NCCL channel, which carries what is small
// and says what comes over NCCL. The last byte of each of its messages says
// which of these it is:
//
//   hello     what a side is, in numbers: see nccl_set_up.cc
//   ids       the two communicators' unique ids, from the lower rank
//   whole     a message of the channel above, as it is
//   announced a message that comes over NCCL: u64 size, u64 number; both
//             little-endian
//
// One thread may send while another receives, as with any Channel.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_CONTROL_LANE_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_CONTROL_LANE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "base/deadline.h"
#include "worker/transport/channel.h"

namespace deltapipe {

class ControlLane {
 public:
  enum class Kind : uint8_t { kHello = 1, kIds, kWhole, kAnnounced };
  struct Message {
    Kind kind = Kind::kWhole;
    Buffer bytes;
  };
  struct Announcement {
    uint64_t size = 0;
    uint64_t number = 0;
  };

  explicit ControlLane(std::unique_ptr<Channel> channel)
      : channel_(std::move(channel)) {}

  absl::Status Send(Kind kind, absl::Span<const ByteSpan> pieces,
                    Deadline deadline);
  absl::Status Announce(const Announcement& announcement, Deadline deadline);

  /// Errors as of Channel::Receive; DATA_LOSS if it is none of the above.
  absl::StatusOr<Message> Receive(Deadline deadline);
  /// Returns at once: an error if the peer has gone or the channel is broken.
  /// May take in the next message, which the next Receive returns. On the
  /// receiving thread.
  absl::Status Watch();

  static absl::StatusOr<Announcement> ReadAnnouncement(ByteSpan bytes);

  Channel* channel() { return channel_.get(); }

 private:
  const std::unique_ptr<Channel> channel_;
  std::optional<Buffer> ahead_;  // of the receiving thread
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_CONTROL_LANE_H_
