#include "worker/transport/frame_channel.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/transport/clock_wait.h"
#include "worker/transport/frame_receiver.h"
#include "worker/transport/frame_sender.h"
#include "worker/transport/frame_wire.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

// Two threads beside the callers: the reader takes messages in and never sends,
// so that two ends that both send can never wait for each other; the writer
// sends acknowledgements, requests and repetitions, and watches the time.
//
// The channel below is sent to by whoever has the turn (is_sending_).
class FrameChannelImpl : public FrameChannel {
 public:
  FrameChannelImpl(std::unique_ptr<Channel> channel,
                   const FrameChannelOptions& options)
      : channel_(std::move(channel)),
        options_(options),
        clock_(options.clock),
        sender_(options.window_bytes, options.resend_after),
        receiver_(options.window_bytes) {}

  ~FrameChannelImpl() override {
    Cancel(absl::CancelledError("the frame channel was destroyed"));
    reader_.Join();
    writer_.Join();
  }

  void Start() {
    reader_ = Thread("frame-reader", [this] { Read(); });
    writer_ = Thread("frame-writer", [this] { Write(); });
  }

  absl::Status Send(const FrameHeader& header,
                    absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    const int64_t payload_bytes = TotalBytes(pieces);
    DP_RETURN_IF_ERROR(CheckFrame(header, payload_bytes));
    const int64_t message_bytes = kFrameHeaderBytes + payload_bytes;
    DP_RETURN_IF_ERROR(AwaitRoom(header, message_bytes, deadline));

    absl::StatusOr<Buffer> joined = Concatenate(pieces, kFrameHeaderBytes);
    if (!joined.ok()) {
      MutexLock lock(&mutex_);
      sender_.CancelReservation(message_bytes);
      return joined.status();
    }
    auto message = std::make_shared<Buffer>(*std::move(joined));
    WireHeader wire;
    wire.frame = header;
    wire.frame.generation = options_.generation;
    wire.payload_bytes = static_cast<uint64_t>(payload_bytes);
    if (options_.verify_checksums) {
      wire.payload_checksum =
          Checksum(message->span().subspan(kFrameHeaderBytes));
    } else {
      wire.wire_flags = kWireNoPayloadChecksum;
    }
    {
      MutexLock lock(&mutex_);
      const bool ready = turn_changed_.WaitUntil(lock, deadline, [&] {
        return !status_.ok() || (!is_sending_ && !writer_wants_turn_);
      });
      if (!status_.ok() || !ready) {
        sender_.CancelReservation(message_bytes);
        return status_.ok() ? TimedOut("send", header) : status_;
      }
      is_sending_ = true;
      wire.sequence = sender_.next_sequence();
      EncodeFrameHeader(wire, message->data());
      sender_.Keep(message, clock_->Now());
      ++counters_.frames_sent;
    }
    return Transmit(*message, deadline);
  }

  absl::StatusOr<Frame> Receive(Deadline deadline) override {
    Frame frame;
    bool is_answer_due;
    {
      MutexLock lock(&mutex_);
      arrived_.WaitUntil(lock, deadline, [&] {
        return receiver_.has_ready() || !status_.ok();
      });
      if (is_cancelled_) return status_;
      if (!receiver_.has_ready()) {
        if (!status_.ok()) return status_;
        return absl::DeadlineExceededError(
            absl::StrCat("receive of a frame from ", peer(), " timed out"));
      }
      frame = receiver_.TakeReady();
      is_answer_due = receiver_.AnswerDue() < writer_wakes_at_;
    }
    if (is_answer_due) writer_wake_.NotifyOne();
    return frame;
  }

  absl::Status Flush(Deadline deadline) override {
    {
      MutexLock lock(&mutex_);
      if (!status_.ok()) return status_;
      if (sender_.all_acknowledged()) return absl::OkStatus();
      wants_question_ = true;
    }
    writer_wake_.NotifyOne();
    MutexLock lock(&mutex_);
    const bool done = acknowledged_.WaitUntil(lock, deadline, [&] {
      return !status_.ok() || sender_.all_acknowledged();
    });
    if (!status_.ok()) return status_;
    if (done) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat(
        "flush timed out: ", peer(), " has not acknowledged every frame"));
  }

  void Cancel(absl::Status reason) override {
    reason = CancelReason(reason);
    {
      MutexLock lock(&mutex_);
      is_cancelled_ = true;
      // In the same breath: a Receive that sees the one returns the other.
      if (status_.ok()) status_ = reason;
    }
    // The status is what later calls return; nobody waits for it here.
    Break(reason).IgnoreError();
  }

  FrameCounters counters() const override {
    MutexLock lock(&mutex_);
    FrameCounters counters = counters_;
    counters.frames_resent = sender_.num_resent();
    counters.gaps = receiver_.num_gaps();
    return counters;
  }

  ChannelCounters channel_counters() const override {
    return channel_->counters();
  }

  std::string peer() const override { return channel_->peer(); }

 private:
  absl::Status CheckFrame(const FrameHeader& header,
                          int64_t payload_bytes) const {
    if (IsControl(header.kind)) {
      return absl::InvalidArgumentError(
          "frames of this kind are the channel's own");
    }
    const int64_t most = std::min(
        options_.max_payload_bytes,
        channel_->capabilities().max_message_bytes - kFrameHeaderBytes);
    if (payload_bytes <= most) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("payload of ", payload_bytes, " bytes, expected at most ",
                     most, " (", header.ToString(), " to ", peer(), ")"));
  }

  absl::Status TimedOut(absl::string_view what,
                        const FrameHeader& header) const {
    return absl::DeadlineExceededError(
        absl::StrCat(what, " timed out: ", header.ToString(), " to ", peer()));
  }

  // Reserves room in the window.
  absl::Status AwaitRoom(const FrameHeader& header, int64_t bytes,
                         Deadline deadline) {
    MutexLock lock(&mutex_);
    if (!sender_.has_room() && status_.ok()) {
      ++num_waiting_for_room_;
      writer_wake_.NotifyOne();
      room_.WaitUntil(lock, deadline,
                      [&] { return !status_.ok() || sender_.has_room(); });
      --num_waiting_for_room_;
    }
    if (!status_.ok()) return status_;
    if (!sender_.has_room()) {
      return Annotate(TimedOut("send", header),
                      "the window is full: the peer does not take frames");
    }
    sender_.Reserve(bytes);
    return absl::OkStatus();
  }

  // Sends one message; the caller has set is_sending_.
  absl::Status Transmit(const Buffer& message, Deadline deadline) {
    const absl::Status sent = channel_->Send({message.span()}, deadline);
    bool wake_writer;
    {
      MutexLock lock(&mutex_);
      is_sending_ = false;
      sender_.Sent(clock_->Now());
      wake_writer = NextTimer() < writer_wakes_at_;
    }
    turn_changed_.NotifyAll();
    if (wake_writer) writer_wake_.NotifyOne();
    return sent.ok() ? sent : Break(sent);
  }

  // Ends everything; the first reason stays and is returned.
  absl::Status Break(const absl::Status& status) {
    absl::Status first;
    {
      MutexLock lock(&mutex_);
      if (status_.ok()) status_ = status;
      first = status_;
    }
    channel_->Cancel(first);
    turn_changed_.NotifyAll();
    room_.NotifyAll();
    acknowledged_.NotifyAll();
    arrived_.NotifyAll();
    writer_wake_.NotifyAll();
    return first;
  }

  // The reader.

  void Read() {
    while (true) {
      absl::StatusOr<Buffer> message = channel_->Receive(Deadline::Infinite());
      if (!message.ok()) {
        // Callers learn it from the status that every later call returns.
        Break(message.status()).IgnoreError();
        return;
      }
      OnMessage(std::move(*message));
    }
  }

  void OnMessage(Buffer message) {
    WireHeader header;
    const HeaderVerdict verdict = ParseFrameHeader(message.span(), &header);
    if (verdict == HeaderVerdict::kDamaged) {
      return Count(&FrameCounters::bad_checksums);
    }
    if (verdict == HeaderVerdict::kOtherVersion) {
      return Refuse(&FrameCounters::refused_version, "another version");
    }
    if (header.frame.generation != options_.generation) {
      return Refuse(&FrameCounters::refused_generation,
                    absl::StrCat("generation ", header.frame.generation,
                                 ", expected ", options_.generation));
    }
    const bool is_control = IsControl(header.frame.kind);
    const int64_t most =
        is_control ? kMaxControlPayloadBytes : options_.max_payload_bytes;
    if (header.payload_bytes > static_cast<uint64_t>(most)) {
      return Refuse(&FrameCounters::refused_size,
                    absl::StrCat(header.payload_bytes,
                                 " bytes, expected at most ", most));
    }
    const ByteSpan payload = message.span().subspan(kFrameHeaderBytes);
    if (verdict == HeaderVerdict::kBadSize ||
        ((options_.verify_checksums || is_control) &&
         !PayloadIsIntact(header, payload))) {
      return OnDamaged(header);
    }
    if (is_control) return OnControl(header, payload);
    Frame frame;
    frame.header = header.frame;
    frame.message = std::move(message);
    frame.payload_offset = kFrameHeaderBytes;
    OnFrame(header.sequence, std::move(frame));
  }

  void OnDamaged(const WireHeader& header) {
    {
      MutexLock lock(&mutex_);
      ++counters_.bad_checksums;
      if (!IsControl(header.frame.kind)) receiver_.OnDamaged(header.sequence);
    }
    writer_wake_.NotifyOne();
  }

  void OnFrame(uint64_t sequence, Frame frame) {
    bool is_ready = false;
    bool is_answer_due;
    {
      MutexLock lock(&mutex_);
      switch (receiver_.OnFrame(sequence, std::move(frame), clock_->Now())) {
        case FrameReceiver::Arrival::kReady:
          is_ready = true;
          ++counters_.frames_received;
          break;
        case FrameReceiver::Arrival::kEarly:
          ++counters_.frames_received;
          break;
        case FrameReceiver::Arrival::kDuplicate:
          ++counters_.duplicates_dropped;
          break;
        case FrameReceiver::Arrival::kImpossible:
          ++counters_.bad_checksums;
          break;
      }
      is_answer_due = receiver_.AnswerDue() < writer_wakes_at_;
    }
    if (is_ready) arrived_.NotifyAll();
    if (is_answer_due) writer_wake_.NotifyOne();
  }

  void OnControl(const WireHeader& header, ByteSpan payload) {
    ControlFrame control;
    if (!ParseControlFrame(header, payload, &control).ok()) {
      return Count(&FrameCounters::bad_checksums);
    }
    std::vector<SharedMessage> freed;  // their memory goes outside the lock
    bool wake_writer;
    {
      MutexLock lock(&mutex_);
      if (!sender_.OnControl(control, clock_->Now(), &freed)) {
        ++counters_.bad_checksums;
        return;
      }
      if (control.answer_at_once) receiver_.OnQuestion(control.highest_sent);
      wake_writer = control.answer_at_once || sender_.has_resends();
    }
    room_.NotifyAll();
    acknowledged_.NotifyAll();
    if (wake_writer) writer_wake_.NotifyOne();
  }

  void Count(int64_t FrameCounters::*counter) {
    MutexLock lock(&mutex_);
    ++(counters_.*counter);
  }

  // Counts a frame that is refused for good and logs the first of its sort.
  void Refuse(int64_t FrameCounters::*counter, const std::string& what) {
    bool is_first;
    {
      MutexLock lock(&mutex_);
      is_first = ++(counters_.*counter) == 1;
    }
    if (is_first) {
      LOG_WARNING << "refused a frame from " << peer() << ": " << what;
    }
  }

  // The writer.

  Nanos NextTimer() const DP_REQUIRES(mutex_) {
    return std::min(receiver_.AnswerDue(),
                    sender_.QuestionDue(num_waiting_for_room_ > 0));
  }

  bool HasWork() const DP_REQUIRES(mutex_) {
    return wants_question_ || sender_.has_resends() ||
           NextTimer() <= clock_->Now();
  }

  void Write() {
    while (true) {
      SharedMessage message;
      {
        MutexLock lock(&mutex_);
        if (!AwaitWork(lock)) return;
        writer_wants_turn_ = true;
        turn_changed_.Wait(lock, [&] { return !status_.ok() || !is_sending_; });
        writer_wants_turn_ = false;
        if (!status_.ok()) return;
        message = NextMessage(clock_->Now());
        is_sending_ = message != nullptr;
      }
      if (message == nullptr) {
        turn_changed_.NotifyAll();
      } else if (!Transmit(*message, Deadline::Infinite()).ok()) {
        return;
      }
    }
  }

  // Returns false when the channel is broken.
  bool AwaitWork(MutexLock& lock) DP_REQUIRES(mutex_) {
    while (status_.ok() && !HasWork()) {
      writer_wakes_at_ = NextTimer();
      WaitOnClock(clock_, &writer_wake_, lock, writer_wakes_at_,
                  Deadline::Infinite(), [&] {
                    return !status_.ok() || HasWork() ||
                           NextTimer() < writer_wakes_at_;
                  });
    }
    writer_wakes_at_ = Nanos::min();  // it is awake
    return status_.ok();
  }

  SharedMessage NextMessage(Nanos now) DP_REQUIRES(mutex_) {
    const bool asks = wants_question_ ||
                      sender_.QuestionDue(num_waiting_for_room_ > 0) <= now;
    if (!asks && receiver_.AnswerDue() > now) {
      SharedMessage resend = sender_.TakeResend(now);
      // Behind the last repetition goes a question whether all came through.
      wants_question_ = resend != nullptr && !sender_.has_resends();
      return resend;
    }
    ControlFrame control;
    control.generation = options_.generation;
    control.highest_sent = sender_.next_sequence() - 1;
    control.answer_at_once = asks;
    receiver_.FillAnswer(&control);
    if (asks) sender_.QuestionAsked(now);
    wants_question_ = false;
    return std::make_shared<Buffer>(EncodeControlFrame(control));
  }

  const std::unique_ptr<Channel> channel_;
  const FrameChannelOptions options_;
  Clock* const clock_;

  mutable Mutex mutex_;
  CondVar turn_changed_;  // is_sending_ or writer_wants_turn_ became false
  CondVar room_;          // the window may have room
  CondVar acknowledged_;  // frames were acknowledged
  CondVar arrived_;       // a frame is ready
  CondVar writer_wake_;   // the writer has work or an earlier time to watch
  absl::Status status_ DP_GUARDED_BY(mutex_);
  bool is_cancelled_ DP_GUARDED_BY(mutex_) = false;
  bool is_sending_ DP_GUARDED_BY(mutex_) = false;
  bool writer_wants_turn_ DP_GUARDED_BY(mutex_) = false;
  bool wants_question_ DP_GUARDED_BY(mutex_) = false;
  int num_waiting_for_room_ DP_GUARDED_BY(mutex_) = 0;
  Nanos writer_wakes_at_ DP_GUARDED_BY(mutex_) = Nanos::min();
  FrameSender sender_ DP_GUARDED_BY(mutex_);
  FrameReceiver receiver_ DP_GUARDED_BY(mutex_);
  FrameCounters counters_ DP_GUARDED_BY(mutex_);

  Thread reader_;
  Thread writer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FrameChannel>> FrameChannel::Create(
    std::unique_ptr<Channel> channel, const FrameChannelOptions& options) {
  if (channel == nullptr || options.clock == nullptr ||
      options.max_payload_bytes < 0 || options.window_bytes <= 0 ||
      options.resend_after <= Nanos(0)) {
    return absl::InvalidArgumentError(
        "frame channel needs a channel, a clock, a window and a time to resend "
        "above 0");
  }
  auto frame_channel =
      std::make_unique<FrameChannelImpl>(std::move(channel), options);
  frame_channel->Start();
  return frame_channel;
}

}  // namespace deltapipe
