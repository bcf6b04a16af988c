#include "worker/transport/nccl/nccl_channel.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"
#include "worker/transport/nccl/control_lane.h"
#include "worker/transport/nccl/nccl_edge.h"
#include "worker/transport/nccl/nccl_set_up.h"

namespace deltapipe {
namespace {

class NcclChannel : public Channel {
 public:
  NcclChannel(std::unique_ptr<ControlLane> lane, std::unique_ptr<NcclEdge> out,
              std::unique_ptr<NcclEdge> in, const NcclChannelOptions& options)
      : lane_(std::move(lane)),
        out_(std::move(out)),
        in_(std::move(in)),
        options_(options),
        below_(lane_->channel()->capabilities()),
        peer_(lane_->channel()->peer()),
        inline_bytes_(
            std::min(options.inline_bytes, below_.max_message_bytes - 1)) {}

  ~NcclChannel() override {
    {
      MutexLock lock(&mutex_);
      if (!broken_.ok()) return;
    }
    // What the peer has not taken by then is lost, as its connection is.
    out_->Drain(Deadline::After(options_.linger)).IgnoreError();
  }

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    DP_RETURN_IF_ERROR(broken());
    const int64_t size = TotalBytes(pieces);
    DP_RETURN_IF_ERROR(CheckMessageSize(size, below_.max_message_bytes, peer_));
    absl::Status sent;
    if (size <= inline_bytes_) {
      sent = lane_->Send(ControlLane::Kind::kWhole, pieces, deadline);
    } else {
      sent = lane_->Announce({static_cast<uint64_t>(size), ++num_announced_},
                             deadline);
      if (sent.ok()) sent = out_->Send(pieces, deadline);
    }
    if (!sent.ok()) return Break(sent);
    messages_sent_.fetch_add(1, std::memory_order_relaxed);
    bytes_sent_.fetch_add(size + kMessagePrefixBytes,
                          std::memory_order_relaxed);
    return sent;
  }

  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    DP_RETURN_IF_ERROR(broken());
    absl::StatusOr<Buffer> message = TakeMessage(deadline);
    if (message.ok()) {
      messages_received_.fetch_add(1, std::memory_order_relaxed);
      bytes_received_.fetch_add(message->size() + kMessagePrefixBytes,
                                std::memory_order_relaxed);
      return message;
    }
    if (!absl::IsDeadlineExceeded(message.status())) {
      return Break(message.status());
    }
    // The other direction may have broken both with a deadline of its own.
    DP_RETURN_IF_ERROR(broken());
    return message;
  }

  void Cancel(absl::Status reason) override {
    // The status is what later calls return; nobody waits for it here.
    Break(CancelReason(reason)).IgnoreError();
  }

  ChannelCapabilities capabilities() const override {
    ChannelCapabilities capabilities = below_;
    capabilities.name = absl::StrCat("nccl(", below_.name, ")");
    return capabilities;
  }

  ChannelCounters counters() const override {
    // Nobody knows for how long NCCL had something on its way.
    ChannelCounters counters;
    counters.messages_sent = messages_sent_.load(std::memory_order_relaxed);
    counters.messages_received =
        messages_received_.load(std::memory_order_relaxed);
    counters.bytes_sent = bytes_sent_.load(std::memory_order_relaxed);
    counters.bytes_received = bytes_received_.load(std::memory_order_relaxed);
    return counters;
  }

  std::string peer() const override { return peer_; }

 private:
  absl::Status broken() const {
    MutexLock lock(&mutex_);
    return broken_;
  }

  /// Ends both directions; the first reason stays and is returned.
  absl::Status Break(const absl::Status& status) {
    absl::Status first;
    {
      MutexLock lock(&mutex_);
      if (broken_.ok()) broken_ = status;
      first = broken_;
    }
    lane_->channel()->Cancel(first);
    out_->Cancel(first);
    in_->Cancel(first);
    return first;
  }

  absl::StatusOr<Buffer> TakeMessage(Deadline deadline) {
    if (!is_message_coming_) {
      DP_ASSIGN_OR_RETURN(ControlLane::Message message,
                          lane_->Receive(deadline));
      if (message.kind == ControlLane::Kind::kWhole) {
        return std::move(message.bytes);
      }
      DP_RETURN_IF_ERROR(BeginMessage(message));
    }
    DP_RETURN_IF_ERROR(in_->Receive(message_.span(), deadline,
                                    [this] { return lane_->Watch(); }));
    is_message_coming_ = false;
    return std::move(message_);
  }

  absl::Status BeginMessage(const ControlLane::Message& message) {
    if (message.kind != ControlLane::Kind::kAnnounced) {
      return absl::DataLossError(
          absl::StrCat("a greeting from ", peer_, " after the greetings"));
    }
    DP_ASSIGN_OR_RETURN(const ControlLane::Announcement announced,
                        ControlLane::ReadAnnouncement(message.bytes.span()));
    if (announced.number != num_expected_ + 1 ||
        announced.size > static_cast<uint64_t>(below_.max_message_bytes) ||
        announced.size == 0) {
      return absl::DataLossError(absl::StrCat(
          peer_, " announces message ", announced.number, " of ",
          announced.size, " bytes, expected message ", num_expected_ + 1,
          " of at most ", below_.max_message_bytes, " bytes"));
    }
    DP_ASSIGN_OR_RETURN(message_,
                        AllocateMessage(static_cast<int64_t>(announced.size)));
    ++num_expected_;
    is_message_coming_ = true;
    return absl::OkStatus();
  }

  // The edges end before the lane does.
  const std::unique_ptr<ControlLane> lane_;
  const std::unique_ptr<NcclEdge> out_;
  const std::unique_ptr<NcclEdge> in_;
  const NcclChannelOptions options_;
  const ChannelCapabilities below_;
  const std::string peer_;
  const int64_t inline_bytes_;

  std::atomic<int64_t> messages_sent_{0};
  std::atomic<int64_t> messages_received_{0};
  std::atomic<int64_t> bytes_sent_{0};
  std::atomic<int64_t> bytes_received_{0};

  mutable Mutex mutex_;
  absl::Status broken_ DP_GUARDED_BY(mutex_);

  uint64_t num_announced_ = 0;  // of the sending thread
  // Of the receiving thread.
  uint64_t num_expected_ = 0;
  bool is_message_coming_ = false;
  Buffer message_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Channel>> WrapWithNccl(
    std::unique_ptr<Channel> channel, NcclContext* context, bool is_lower_rank,
    const NcclChannelOptions& options, Deadline deadline,
    const std::atomic<bool>* is_cancelled) {
  auto lane = std::make_unique<ControlLane>(std::move(channel));
  NcclSetUpOptions set_up;
  set_up.is_lower_rank = is_lower_rank;
  set_up.chunk_bytes = options.chunk_bytes;
  set_up.is_cancelled = is_cancelled;
  DP_ASSIGN_OR_RETURN(NcclEdgePair edges,
                      SetUpNccl(lane.get(), context, set_up, deadline));
  return std::make_unique<NcclChannel>(std::move(lane), std::move(edges.out),
                                       std::move(edges.in), options);
}

}  // namespace deltapipe
