// A decorator that records what passes through a channel, for tests that two
// runs, or two transports, carry the same bytes.
//
// Frames carry a part that depends on timing (acknowledgements, repetitions);
// FirstTransmissionFilter of frame_wire.h leaves it out:
//
//   auto recording = std::make_shared<Recording>(RecordingOptions{true});
//   channel = RecordChannel(std::move(channel), recording);
//   ...
//   EXPECT_EQ(recording->sent().checksum, other->sent().checksum);
#ifndef DELTAPIPE_WORKER_TRANSPORT_RECORDING_RECORDING_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_RECORDING_RECORDING_CHANNEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "worker/transport/channel.h"
#include "worker/transport/frame_wire.h"

namespace deltapipe {

struct RecordingOptions {
  /// Records data frames at their first transmission only.
  bool only_first_transmissions = false;
  /// Keeps every recorded message, not only a checksum.
  bool keep_bytes = false;
};

/// What passed in one direction.
struct RecordedDirection {
  int64_t num_messages = 0;
  int64_t num_bytes = 0;
  /// Of every message's size and bytes, in order.
  uint64_t checksum = 0;
  std::vector<std::string> messages;  // with keep_bytes
};

/// Outlives the channel, so that a test can look at it afterwards. Thread-safe.
class Recording {
 public:
  explicit Recording(const RecordingOptions& options = {});

  void OnSent(ByteSpan message);
  void OnReceived(ByteSpan message);
  RecordedDirection sent() const;
  RecordedDirection received() const;

 private:
  struct Direction {
    RecordedDirection record;
    FirstTransmissionFilter filter;
  };
  void Record(ByteSpan message, Direction* direction) DP_REQUIRES(mutex_);

  const RecordingOptions options_;
  mutable Mutex mutex_;
  Direction sent_ DP_GUARDED_BY(mutex_);
  Direction received_ DP_GUARDED_BY(mutex_);
};

/// The recording is shared with the test.
std::unique_ptr<Channel> RecordChannel(std::unique_ptr<Channel> channel,
                                       std::shared_ptr<Recording> recording);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_RECORDING_RECORDING_CHANNEL_H_
