#include "worker/transport/frame_receiver.h"

#include <algorithm>
#include <utility>

#include "worker/transport/clock_wait.h"

namespace deltapipe {
namespace {

constexpr Nanos kAtOnce = Nanos::min();
constexpr int kFramesPerAnswer = 16;
constexpr size_t kEarlyFramesPerRequest = 16;
// No window holds as many frames; a sequence beyond is not from our peer.
constexpr uint64_t kMaxAhead = uint64_t{1} << 22;

}  // namespace

FrameReceiver::FrameReceiver(int64_t window_bytes)
    : report_bytes_(window_bytes / 8), answer_due_(kNever) {}

FrameReceiver::Arrival FrameReceiver::OnFrame(uint64_t sequence, Frame frame,
                                              Nanos now) {
  if (sequence == 0 || sequence >= expected_ + kMaxAhead) {
    return Arrival::kImpossible;
  }
  if (sequence < expected_ || early_.count(sequence) > 0) {
    answer_due_ = std::min(answer_due_, now + kAcknowledgeDelay);
    return Arrival::kDuplicate;
  }
  const uint64_t first_missing = std::max(highest_seen_ + 1, expected_);
  highest_seen_ = std::max(highest_seen_, sequence);
  if (sequence != expected_) {
    if (first_missing < sequence) {
      newly_missing_.emplace_back(first_missing, sequence);
      num_gaps_ += static_cast<int64_t>(sequence - first_missing);
      answer_due_ = kAtOnce;
    }
    early_.emplace(sequence, std::move(frame));
    // The request may be lost as well.
    if (early_.size() % kEarlyFramesPerRequest == 0) OnQuestion(sequence - 1);
    return Arrival::kEarly;
  }
  Accept(std::move(frame), now);
  while (!early_.empty() && early_.begin()->first == expected_) {
    Accept(std::move(early_.begin()->second), now);
    early_.erase(early_.begin());
  }
  return Arrival::kReady;
}

void FrameReceiver::Accept(Frame frame, Nanos now) {
  ++expected_;
  unreported_bytes_ += frame.message.size();
  if (++num_unreported_ >= kFramesPerAnswer ||
      unreported_bytes_ >= report_bytes_) {
    answer_due_ = kAtOnce;
  }
  answer_due_ = std::min(answer_due_, now + kAcknowledgeDelay);
  ready_.push_back(std::move(frame));
}

void FrameReceiver::OnDamaged(uint64_t sequence) {
  if (sequence < expected_ || sequence >= expected_ + kMaxAhead ||
      early_.count(sequence) > 0) {
    return;
  }
  const uint64_t first_missing = std::max(highest_seen_ + 1, expected_);
  highest_seen_ = std::max(highest_seen_, sequence);
  if (first_missing < sequence) {
    num_gaps_ += static_cast<int64_t>(sequence - first_missing);
  }
  newly_missing_.emplace_back(std::min(first_missing, sequence), sequence + 1);
  answer_due_ = kAtOnce;
}

void FrameReceiver::OnQuestion(uint64_t highest_sent) {
  asked_until_ =
      std::max(asked_until_, std::min(highest_sent + 1, expected_ + kMaxAhead));
  answer_due_ = kAtOnce;
}

Frame FrameReceiver::TakeReady() {
  Frame frame = std::move(ready_.front());
  ready_.pop_front();
  ++num_consumed_;
  unreported_consumed_bytes_ += frame.message.size();
  if (unreported_consumed_bytes_ >= report_bytes_) answer_due_ = kAtOnce;
  return frame;
}

Nanos FrameReceiver::AnswerDue() const { return answer_due_; }

void FrameReceiver::AddMissing(uint64_t first, uint64_t end,
                               SequenceRanges* missing) const {
  first = std::max(first, expected_);
  if (!missing->empty()) first = std::max(first, missing->back().second);
  auto early = early_.lower_bound(first);
  while (first < end && missing->size() < kMaxRequestedRanges) {
    const uint64_t next = early == early_.end() ? end : early->first;
    if (first < next) missing->emplace_back(first, std::min(next, end));
    first = next + 1;
    if (early != early_.end()) ++early;
  }
}

void FrameReceiver::FillAnswer(ControlFrame* control) {
  control->acknowledged = expected_;
  control->consumed = num_consumed_;
  control->missing.clear();
  if (asked_until_ > 0) {
    newly_missing_.assign(1, {expected_, asked_until_});
  }
  std::sort(newly_missing_.begin(), newly_missing_.end());
  for (const auto& [first, end] : newly_missing_) {
    AddMissing(first, end, &control->missing);
  }
  newly_missing_.clear();
  asked_until_ = 0;
  num_unreported_ = 0;
  unreported_bytes_ = 0;
  unreported_consumed_bytes_ = 0;
  answer_due_ = kNever;
}

}  // namespace deltapipe
