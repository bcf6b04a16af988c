// What a FrameChannel knows of the frames it has sent: the bytes kept until
// they are acknowledged, the window, the round trip and when to ask for an
// answer. Numbers and queues only; FrameChannel locks around it and does the
// sending.
//
// A time-out never sends a frame again by itself: it sends a question (a
// control frame that wants an answer at once) behind what was sent. As the
// channel below keeps order, the answer tells what is lost for certain, so that
// a frame that is merely on its way through a slow link costs no second
// transmission.
#ifndef DELTAPIPE_WORKER_TRANSPORT_FRAME_SENDER_H_
#define DELTAPIPE_WORKER_TRANSPORT_FRAME_SENDER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <vector>

#include "base/clock.h"
#include "worker/transport/frame_wire.h"

namespace deltapipe {

/// Shared by the keeping queue and a transmission under way, which may be of a
/// frame that is acknowledged meanwhile.
using SharedMessage = std::shared_ptr<const Buffer>;

class FrameSender {
 public:
  FrameSender(int64_t window_bytes, Nanos longest_wait);

  /// Bytes sent, or reserved for sending, that the peer's user has not taken.
  bool has_room() const { return unconsumed_bytes_ < window_bytes_; }
  void Reserve(int64_t bytes) { unconsumed_bytes_ += bytes; }
  void CancelReservation(int64_t bytes) { unconsumed_bytes_ -= bytes; }

  uint64_t next_sequence() const { return next_sequence_; }
  bool all_acknowledged() const { return kept_.empty(); }
  /// Keeps a frame that carries next_sequence() and whose bytes are reserved.
  void Keep(SharedMessage message, Nanos now);
  /// The last transmission has left this end.
  void Sent(Nanos now);

  /// Takes in what the peer says. Frames that are no longer needed move to
  /// `freed`. Returns false, and ignores all, if it is impossible.
  bool OnControl(const ControlFrame& control, Nanos now,
                 std::vector<SharedMessage>* freed);

  /// The next frame to send again; null if none.
  SharedMessage TakeResend(Nanos now);
  bool has_resends() const { return !resends_.empty(); }

  /// When to ask for an answer unless one comes; `is_waited_for`: somebody
  /// waits for room or for acknowledgement.
  Nanos QuestionDue(bool is_waited_for) const;
  void QuestionAsked(Nanos now);

  int64_t num_resent() const { return num_resent_; }

 private:
  struct Kept {
    SharedMessage message;
    Nanos sent_at;
    bool is_resent;
  };
  void Measure(Nanos round_trip);
  void ScheduleResends(const SequenceRanges& ranges, Nanos now);

  const int64_t window_bytes_;
  const Nanos longest_wait_;

  uint64_t next_sequence_ = 1;
  uint64_t first_kept_ = 1;  // sequence of kept_.front()
  std::deque<Kept> kept_;
  uint64_t num_consumed_ = 0;             // by the peer's user, as it says
  std::deque<int64_t> unconsumed_sizes_;  // of the frames after those
  int64_t unconsumed_bytes_ = 0;
  std::set<uint64_t> resends_;

  Nanos last_progress_{0};
  int num_questions_ = 0;  // since the last progress
  bool has_round_trip_ = false;
  Nanos smoothed_round_trip_{0};
  Nanos round_trip_deviation_{0};
  Nanos least_round_trip_{0};
  int64_t num_resent_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_FRAME_SENDER_H_
