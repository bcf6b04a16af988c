#include "worker/transport/loopback/loopback_channel.h"

#include <deque>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

// One direction. Shared by its two ends, which live and die independently.
struct Pipe {
  Mutex mutex;
  CondVar changed;
  std::deque<Buffer> queue DP_GUARDED_BY(mutex);
  int64_t queued_bytes DP_GUARDED_BY(mutex) = 0;
  // Why that end is closed; OK while it is open.
  absl::Status sender_status DP_GUARDED_BY(mutex);
  absl::Status receiver_status DP_GUARDED_BY(mutex);
};

class LoopbackChannel : public Channel {
 public:
  LoopbackChannel(std::shared_ptr<Pipe> out, std::shared_ptr<Pipe> in,
                  int64_t capacity_bytes, int64_t max_message_bytes,
                  std::string peer)
      : out_(std::move(out)),
        in_(std::move(in)),
        capacity_bytes_(capacity_bytes),
        max_message_bytes_(max_message_bytes),
        peer_(std::move(peer)) {}

  ~LoopbackChannel() override {
    Cancel(absl::CancelledError("the channel was destroyed"));
  }

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    const int64_t size = TotalBytes(pieces);
    {
      MutexLock lock(&out_->mutex);
      if (!out_->sender_status.ok()) return out_->sender_status;
    }
    absl::Status checked = CheckMessageSize(size, max_message_bytes_, peer_);
    if (!checked.ok()) return checked;
    DP_ASSIGN_OR_RETURN(Buffer message, Concatenate(pieces));
    absl::Status failure;
    {
      MutexLock lock(&out_->mutex);
      const bool ready = out_->changed.WaitUntil(lock, deadline, [&] {
        return !out_->sender_status.ok() || !out_->receiver_status.ok() ||
               out_->queue.empty() ||
               out_->queued_bytes + size <= capacity_bytes_;
      });
      if (!out_->sender_status.ok()) return out_->sender_status;
      if (!out_->receiver_status.ok()) {
        failure = absl::UnavailableError(
            absl::StrCat("send to ", peer_, " failed: the peer is closed"));
      } else if (!ready) {
        failure = absl::DeadlineExceededError(
            absl::StrCat("send of ", size, " bytes to ", peer_,
                         " timed out: the peer does not read"));
      } else {
        out_->queued_bytes += size;
        out_->queue.push_back(std::move(message));
        counters_.messages_sent += 1;
        counters_.bytes_sent += size + kMessagePrefixBytes;
      }
    }
    if (!failure.ok()) return Break(failure);
    out_->changed.NotifyAll();
    return absl::OkStatus();
  }

  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    bool peer_gone = false;
    Buffer message;
    {
      MutexLock lock(&in_->mutex);
      const bool ready = in_->changed.WaitUntil(lock, deadline, [&] {
        return !in_->receiver_status.ok() || !in_->queue.empty() ||
               !in_->sender_status.ok();
      });
      if (!in_->receiver_status.ok()) return in_->receiver_status;
      if (!ready) {
        return absl::DeadlineExceededError(
            absl::StrCat("receive from ", peer_, " timed out"));
      }
      if (in_->queue.empty()) {
        peer_gone = true;
      } else {
        message = std::move(in_->queue.front());
        in_->queue.pop_front();
        in_->queued_bytes -= message.size();
        messages_received_ += 1;
        bytes_received_ += message.size() + kMessagePrefixBytes;
      }
    }
    if (peer_gone) {
      return Break(absl::UnavailableError(absl::StrCat(
          "receive from ", peer_, " failed: the peer closed the channel")));
    }
    in_->changed.NotifyAll();
    return message;
  }

  void Cancel(absl::Status reason) override {
    // The status is what later calls return; nobody waits for it here.
    Break(CancelReason(reason)).IgnoreError();
  }

  ChannelCapabilities capabilities() const override {
    ChannelCapabilities capabilities;
    capabilities.max_message_bytes = max_message_bytes_;
    capabilities.name = "loopback";
    return capabilities;
  }

  ChannelCounters counters() const override {
    ChannelCounters counters;
    {
      MutexLock lock(&out_->mutex);
      counters = counters_;
    }
    MutexLock lock(&in_->mutex);
    counters.messages_received = messages_received_;
    counters.bytes_received = bytes_received_;
    return counters;
  }

  std::string peer() const override { return peer_; }

 private:
  // Closes both directions; the first reason stays and is returned.
  absl::Status Break(const absl::Status& status) {
    absl::Status first;
    {
      MutexLock lock(&out_->mutex);
      if (out_->sender_status.ok()) out_->sender_status = status;
      first = out_->sender_status;
    }
    out_->changed.NotifyAll();
    {
      MutexLock lock(&in_->mutex);
      if (in_->receiver_status.ok()) in_->receiver_status = first;
      in_->queue.clear();
      in_->queued_bytes = 0;
    }
    in_->changed.NotifyAll();
    return first;
  }

  const std::shared_ptr<Pipe> out_;
  const std::shared_ptr<Pipe> in_;
  const int64_t capacity_bytes_;
  const int64_t max_message_bytes_;
  const std::string peer_;

  ChannelCounters counters_;       // under out_->mutex
  int64_t messages_received_ = 0;  // under in_->mutex
  int64_t bytes_received_ = 0;     // under in_->mutex
};

}  // namespace

std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>>
CreateLoopbackChannelPair(int64_t capacity_bytes, int64_t max_message_bytes,
                          const std::string& peer_of_first,
                          const std::string& peer_of_second) {
  auto forward = std::make_shared<Pipe>();
  auto backward = std::make_shared<Pipe>();
  return {std::make_unique<LoopbackChannel>(forward, backward, capacity_bytes,
                                            max_message_bytes, peer_of_first),
          std::make_unique<LoopbackChannel>(backward, forward, capacity_bytes,
                                            max_message_bytes, peer_of_second)};
}

}  // namespace deltapipe
