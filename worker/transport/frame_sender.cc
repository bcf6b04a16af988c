#include "worker/transport/frame_sender.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "worker/transport/clock_wait.h"
#include "worker/transport/frame_receiver.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;

// Before the first measurement.
constexpr Nanos kFirstWait = milliseconds(100);
// Questions are small, so that a slow scheduler costs little.
constexpr Nanos kShortestWait = milliseconds(5);

}  // namespace

FrameSender::FrameSender(int64_t window_bytes, Nanos longest_wait)
    : window_bytes_(window_bytes), longest_wait_(longest_wait) {}

void FrameSender::Keep(SharedMessage message, Nanos now) {
  if (kept_.empty()) {
    last_progress_ = now;
    num_questions_ = 0;
  }
  unconsumed_sizes_.push_back(message->size());
  kept_.push_back({std::move(message), now, false});
  ++next_sequence_;
}

void FrameSender::Sent(Nanos now) {
  last_progress_ = std::max(last_progress_, now);
}

bool FrameSender::OnControl(const ControlFrame& control, Nanos now,
                            std::vector<SharedMessage>* freed) {
  if (control.acknowledged > next_sequence_ ||
      control.consumed >= next_sequence_ ||
      control.consumed >= std::max<uint64_t>(control.acknowledged, 1)) {
    return false;
  }
  bool is_progress = false;
  if (control.acknowledged > first_kept_) {
    is_progress = true;
    // An acknowledgement that waited for a repetition says nothing about the
    // round trip.
    const Nanos newest_sent_at =
        kept_[control.acknowledged - 1 - first_kept_].sent_at;
    bool is_any_resent = false;
    while (first_kept_ < control.acknowledged) {
      is_any_resent |= kept_.front().is_resent;
      freed->push_back(std::move(kept_.front().message));
      kept_.pop_front();
      ++first_kept_;
    }
    if (!is_any_resent) Measure(now - newest_sent_at);
    resends_.erase(resends_.begin(), resends_.lower_bound(first_kept_));
  }
  while (num_consumed_ < control.consumed) {
    is_progress = true;
    unconsumed_bytes_ -= unconsumed_sizes_.front();
    unconsumed_sizes_.pop_front();
    ++num_consumed_;
  }
  if (is_progress) {
    last_progress_ = now;
    num_questions_ = 0;
  }
  ScheduleResends(control.missing, now);
  return true;
}

void FrameSender::ScheduleResends(const SequenceRanges& ranges, Nanos now) {
  for (const auto& [first, end] : ranges) {
    const uint64_t last = std::min(end, next_sequence_);
    for (uint64_t i = std::max(first, first_kept_); i < last; ++i) {
      // A frame sent again less than a round trip ago is still on its way: the
      // request was written before it could arrive.
      const Kept& kept = kept_[i - first_kept_];
      if (kept.is_resent && now - kept.sent_at < least_round_trip_) continue;
      resends_.insert(i);
    }
  }
}

SharedMessage FrameSender::TakeResend(Nanos now) {
  if (resends_.empty()) return nullptr;
  const uint64_t sequence = *resends_.begin();
  resends_.erase(resends_.begin());
  Kept& kept = kept_[sequence - first_kept_];
  kept.sent_at = now;
  kept.is_resent = true;
  ++num_resent_;
  return kept.message;
}

void FrameSender::Measure(Nanos round_trip) {
  if (!has_round_trip_) {
    has_round_trip_ = true;
    least_round_trip_ = round_trip;
    smoothed_round_trip_ = round_trip;
    round_trip_deviation_ = round_trip / 2;
    return;
  }
  const Nanos error = round_trip - smoothed_round_trip_;
  least_round_trip_ = std::min(least_round_trip_, round_trip);
  smoothed_round_trip_ += error / 8;
  round_trip_deviation_ +=
      (Nanos(std::abs(error.count())) - round_trip_deviation_) / 4;
}

Nanos FrameSender::QuestionDue(bool is_waited_for) const {
  if (kept_.empty() && !is_waited_for) return kNever;
  Nanos wait = kFirstWait;
  if (has_round_trip_) {
    wait = smoothed_round_trip_ + 4 * round_trip_deviation_;
    wait = std::max(wait + kAcknowledgeDelay, kShortestWait);
  }
  for (int i = 0; i < num_questions_ && wait < longest_wait_; ++i) wait *= 2;
  return last_progress_ + std::min(wait, longest_wait_);
}

void FrameSender::QuestionAsked(Nanos now) {
  last_progress_ = now;
  ++num_questions_;
}

}  // namespace deltapipe
