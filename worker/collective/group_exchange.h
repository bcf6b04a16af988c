// GroupExchange: the messages of one transaction of a collective, checked.
//
// A message to a peer is split into pieces of at most max_message_bytes, one
// frame each. The receiver checks every header against what this transaction
// expects next (step, phase, piece, codec), so that ranks that are out of step,
// or disagree about the format, find out before a value is used.
//
// Used by one thread, but for activity(). Waits without a deadline: whoever
// started the transaction bounds it, by RankGroup::Cancel.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_GROUP_EXCHANGE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_GROUP_EXCHANGE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/collective/rank_group.h"

namespace deltapipe {

class GroupExchange {
 public:
  GroupExchange(RankGroup* group, uint64_t generation,
                int64_t max_message_bytes)
      : group_(group),
        generation_(generation),
        max_message_bytes_(max_message_bytes) {}

  /// Starts a transaction. `codec_hash` must agree on all ranks.
  void Begin(uint32_t step, uint32_t codec_hash);

  /// What identifies a frame inside its transaction.
  struct Part {
    uint32_t phase = 0;
    uint32_t piece = 0;
    uint32_t num_pieces = 1;
    int64_t num_elements = 0;
  };
  absl::Status Send(int peer, const Part& part, ByteSpan bytes);
  /// FAILED_PRECONDITION if the next frame is not `part`; num_pieces and
  /// num_elements are not compared. UNAVAILABLE also if the peer says that
  /// another rank has left (departure.h). Errors name the peer.
  absl::StatusOr<Frame> Receive(int peer, const Part& part);

  struct Outgoing {
    int peer = 0;
    int64_t num_elements = 0;
    /// Called when it is this message's turn; the bytes must stay until
    /// Exchange returns.
    std::function<absl::StatusOr<ByteSpan>()> encode;
  };
  /// Sends one message to each of `outgoing` and receives one from each of
  /// `sources`; `on_message` sees them whole, in the order of `sources`.
  /// Never has more than one piece a peer on the way in each direction.
  /// DATA_LOSS, before it takes memory, for a message of more pieces than
  /// `most_bytes` make.
  absl::Status Exchange(
      uint32_t phase, absl::Span<const Outgoing> outgoing,
      absl::Span<const int> sources, int64_t most_bytes,
      const std::function<absl::Status(int peer, ByteSpan bytes)>& on_message);

  RankGroup* group() const { return group_; }
  int64_t max_message_bytes() const { return max_message_bytes_; }
  /// Payload bytes sent since construction.
  int64_t payload_bytes() const { return payload_bytes_; }

  /// What the exchange is doing, for the message of a deadline that passed:
  /// "waiting for rank 1 (10.0.0.2:4711), phase 1". Callable from any thread.
  std::string activity() const;
  /// Whether it is sending or waiting now. Callable from any thread.
  bool is_active() const { return active_peer_.load() >= 0; }

 private:
  uint32_t NumPieces(int64_t bytes) const;
  absl::Status CheckHeader(const FrameHeader& header, const Part& part) const;

  RankGroup* const group_;
  const uint64_t generation_;
  const int64_t max_message_bytes_;
  uint32_t step_ = 0;
  uint32_t codec_hash_ = 0;
  int64_t payload_bytes_ = 0;
  // Peer, phase and direction of the call that may be blocked.
  std::atomic<int> active_peer_{-1};
  std::atomic<uint32_t> active_phase_{0};
  std::atomic<bool> is_sending_{false};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_GROUP_EXCHANGE_H_
