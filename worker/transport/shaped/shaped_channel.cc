#include "worker/transport/shaped/shaped_channel.h"

#include <chrono>
#include <deque>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/transport/clock_wait.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

class ShapedChannel : public Channel {
 public:
  ShapedChannel(std::unique_ptr<Channel> channel,
                std::shared_ptr<LinkShaper> link)
      : channel_(std::move(channel)),
        link_(std::move(link)),
        clock_(link_->options().clock),
        max_message_bytes_(channel_->capabilities().max_message_bytes),
        flow_(link_->AddFlow([this] { OnRateChanged(); })) {
    delivery_ = Thread("shaped-link", [this] { Deliver(); });
  }

  ~ShapedChannel() override {
    Drain();
    Break(absl::CancelledError("the channel was destroyed")).IgnoreError();
    delivery_.Join();
    link_->RemoveFlow(flow_);
  }

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    const int64_t size = TotalBytes(pieces);
    bool is_direct;
    {
      MutexLock lock(&mutex_);
      if (!broken_.ok()) return broken_;
      is_direct = link_->is_transparent() && queue_.empty();
    }
    if (is_direct) {
      const absl::Status sent = channel_->Send(pieces, deadline);
      return sent.ok() ? sent : Break(sent);
    }
    absl::Status checked =
        CheckMessageSize(size, max_message_bytes_, channel_->peer());
    if (!checked.ok()) return checked;
    DP_ASSIGN_OR_RETURN(Buffer message, Concatenate(pieces));
    bool timed_out;
    {
      MutexLock lock(&mutex_);
      timed_out = !AwaitRoom(lock, size, deadline);
      if (!broken_.ok()) return broken_;
      if (!timed_out) {
        queued_bytes_ += size + kMessagePrefixBytes;
        queue_.push_back(std::move(message));
        link_->Enqueue(flow_, size + kMessagePrefixBytes);
      }
    }
    if (timed_out) {
      return Break(absl::DeadlineExceededError(
          absl::StrCat("send of ", size, " bytes to ", channel_->peer(),
                       " timed out: the link's queue is full")));
    }
    changed_.NotifyAll();
    return absl::OkStatus();
  }

  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    absl::StatusOr<Buffer> message = channel_->Receive(deadline);
    if (!message.ok() &&
        message.status().code() != absl::StatusCode::kDeadlineExceeded) {
      return Break(message.status());
    }
    return message;
  }

  void Cancel(absl::Status reason) override {
    // The status is what later calls return; nobody waits for it here.
    Break(CancelReason(reason)).IgnoreError();
  }

  ChannelCapabilities capabilities() const override {
    ChannelCapabilities capabilities = channel_->capabilities();
    capabilities.is_shaped = true;
    capabilities.name = absl::StrCat("shaped(", capabilities.name, ")");
    return capabilities;
  }

  ChannelCounters counters() const override {
    ChannelCounters counters = channel_->counters();
    MutexLock lock(&mutex_);
    // A link that is or was held back is what counts, not what lies below it.
    if (busy_seconds_ > 0 || link_->bits_per_second() > 0) {
      counters.busy_seconds = busy_seconds_;
      counters.bytes_per_second = link_->bits_per_second() / 8;
    }
    return counters;
  }
  std::string peer() const override { return channel_->peer(); }

 private:
  absl::Status Break(const absl::Status& status) {
    absl::Status first;
    {
      MutexLock lock(&mutex_);
      if (broken_.ok()) broken_ = status;
      first = broken_;
    }
    changed_.NotifyAll();
    channel_->Cancel(first);
    return first;
  }

  void OnRateChanged() {
    {
      MutexLock lock(&mutex_);
      ++num_rate_changes_;
    }
    changed_.NotifyAll();
  }

  // What waits for the link, or for a peer that does not read: all but what is
  // on its way.
  bool HasRoom(int64_t size, const LinkShaper::FlowState& state) const
      DP_REQUIRES(mutex_) {
    const int64_t num_waiting =
        static_cast<int64_t>(queue_.size()) - state.num_in_flight;
    return num_waiting < 2 || queued_bytes_ - state.bytes_in_flight + size <=
                                  link_->options().queue_bytes;
  }

  bool AwaitRoom(MutexLock& lock, int64_t size, Deadline deadline)
      DP_REQUIRES(mutex_) {
    while (broken_.ok()) {
      const LinkShaper::FlowState state = link_->State(flow_);
      if (HasRoom(size, state)) return true;
      if (deadline.has_passed()) return false;
      const int64_t num_taken = num_taken_;
      const int64_t num_rate_changes = num_rate_changes_;
      WaitOnClock(clock_, &changed_, lock, state.next_departure, deadline, [&] {
        return !broken_.ok() || num_taken != num_taken_ ||
               num_rate_changes != num_rate_changes_;
      });
    }
    return true;
  }

  void Deliver() {
    while (true) {
      Buffer message;
      {
        MutexLock lock(&mutex_);
        if (!AwaitArrival(lock)) return;
        message = std::move(queue_.front());
      }
      const absl::Status sent =
          channel_->Send({message.span()}, Deadline::Infinite());
      {
        MutexLock lock(&mutex_);
        queue_.pop_front();
        const int64_t size = message.size() + kMessagePrefixBytes;
        queued_bytes_ -= size;
        const double rate = link_->bits_per_second();
        if (rate > 0) busy_seconds_ += 8 * static_cast<double>(size) / rate;
        link_->TakeArrival(flow_);
        ++num_taken_;
      }
      changed_.NotifyAll();
      if (!sent.ok()) {
        Break(sent).IgnoreError();  // later calls return it
        return;
      }
    }
  }

  // Waits until the head of the queue has crossed the link; false if broken.
  bool AwaitArrival(MutexLock& lock) DP_REQUIRES(mutex_) {
    while (broken_.ok()) {
      const LinkShaper::FlowState state = link_->State(flow_);
      if (state.has_arrived) return true;
      const bool was_empty = queue_.empty();
      const int64_t num_rate_changes = num_rate_changes_;
      WaitOnClock(clock_, &changed_, lock, state.next_arrival,
                  Deadline::Infinite(), [&] {
                    return !broken_.ok() || was_empty != queue_.empty() ||
                           num_rate_changes != num_rate_changes_;
                  });
    }
    return false;
  }

  void Drain() {
    MutexLock lock(&mutex_);
    const double rate = link_->bits_per_second();
    // Other channels may share the link: four times the time alone.
    const double seconds =
        1 + (rate > 0 ? 4 * 8 * static_cast<double>(queued_bytes_) / rate : 0);
    const auto linger =
        Nanos(static_cast<int64_t>(seconds * 1e9)) + link_->options().latency;
    changed_.WaitUntil(lock, Deadline::After(linger),
                       [&] { return !broken_.ok() || queue_.empty(); });
  }

  const std::unique_ptr<Channel> channel_;
  const std::shared_ptr<LinkShaper> link_;
  Clock* const clock_;
  const int64_t max_message_bytes_;
  const FluidLink::FlowId flow_;

  // Held while link_'s own lock is taken, never the other way round.
  mutable Mutex mutex_;
  CondVar changed_;
  double busy_seconds_ DP_GUARDED_BY(mutex_) = 0;  // at the rate of its time
  absl::Status broken_ DP_GUARDED_BY(mutex_);
  // In the order of sending; the link knows their sizes and times.
  std::deque<Buffer> queue_ DP_GUARDED_BY(mutex_);
  int64_t queued_bytes_ DP_GUARDED_BY(mutex_) = 0;
  int64_t num_taken_ DP_GUARDED_BY(mutex_) = 0;
  int64_t num_rate_changes_ DP_GUARDED_BY(mutex_) = 0;

  Thread delivery_;
};

}  // namespace

std::unique_ptr<Channel> ShapeChannel(std::unique_ptr<Channel> channel,
                                      std::shared_ptr<LinkShaper> link,
                                      bool may_change) {
  if (link == nullptr) return channel;
  if (link->is_transparent() && !may_change) return channel;
  return std::make_unique<ShapedChannel>(std::move(channel), std::move(link));
}

}  // namespace deltapipe
