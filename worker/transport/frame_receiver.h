// What a FrameChannel knows of the frames that arrived: which is next, which
// came early, what is missing, and when to say so. Numbers and queues only;
// FrameChannel locks around it.
#ifndef DELTAPIPE_WORKER_TRANSPORT_FRAME_RECEIVER_H_
#define DELTAPIPE_WORKER_TRANSPORT_FRAME_RECEIVER_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>

#include "base/clock.h"
#include "worker/transport/frame.h"
#include "worker/transport/frame_wire.h"

namespace deltapipe {

/// How long an acknowledgement may wait for company.
inline constexpr Nanos kAcknowledgeDelay = std::chrono::milliseconds(10);

class FrameReceiver {
 public:
  explicit FrameReceiver(int64_t window_bytes);

  enum class Arrival { kReady, kEarly, kDuplicate, kImpossible };
  /// Takes in an intact data frame.
  Arrival OnFrame(uint64_t sequence, Frame frame, Nanos now);
  /// The data frame `sequence` arrived damaged.
  void OnDamaged(uint64_t sequence);
  /// The peer wants an answer; it has sent everything up to `highest_sent`.
  void OnQuestion(uint64_t highest_sent);

  bool has_ready() const { return !ready_.empty(); }
  /// The next frame for the user; there must be one.
  Frame TakeReady();

  /// When an answer must go out; Nanos::min() for at once, kNever for no need.
  Nanos AnswerDue() const;
  /// Fills in acknowledged, consumed and missing; there is no need any more.
  void FillAnswer(ControlFrame* control);

  int64_t num_gaps() const { return num_gaps_; }

 private:
  void Accept(Frame frame, Nanos now);
  void AddMissing(uint64_t first, uint64_t end, SequenceRanges* missing) const;

  const int64_t report_bytes_;

  uint64_t expected_ = 1;
  uint64_t highest_seen_ = 0;
  std::map<uint64_t, Frame> early_;
  std::deque<Frame> ready_;
  uint64_t num_consumed_ = 0;

  // Since the last answer.
  int num_unreported_ = 0;
  int64_t unreported_bytes_ = 0;
  int64_t unreported_consumed_bytes_ = 0;
  Nanos answer_due_;
  SequenceRanges newly_missing_;
  uint64_t asked_until_ = 0;  // the peer asks about everything below

  int64_t num_gaps_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_FRAME_RECEIVER_H_
