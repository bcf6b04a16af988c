#include "worker/transport/tcp/tcp_channel.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "base/little_endian.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"
#include "worker/transport/tcp/link_figures.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxVectors = 64;  // well below the system's limit

class TcpChannel : public Channel {
 public:
  TcpChannel(std::unique_ptr<ByteStream> stream, std::string peer,
             int64_t max_message_bytes)
      : stream_(std::move(stream)),
        peer_(std::move(peer)),
        max_message_bytes_(max_message_bytes) {}

  ~TcpChannel() override {
    // Closing with unread bytes would reset the connection, and the peer might
    // lose what was sent last.
    shutdown(stream_->fd(), SHUT_WR);
    uint8_t scratch[4096];
    for (int i = 0; i < 1024; ++i) {
      if (recv(stream_->fd(), scratch, sizeof(scratch), MSG_DONTWAIT) <= 0) {
        break;
      }
    }
  }

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    if (is_broken_.load(std::memory_order_acquire)) return broken();
    const int64_t size = TotalBytes(pieces);
    absl::Status checked = CheckMessageSize(size, max_message_bytes_, peer_);
    if (!checked.ok()) return checked;

    uint8_t prefix[kMessagePrefixBytes];
    StoreLittleEndian<uint64_t>(static_cast<uint64_t>(size), prefix);
    absl::InlinedVector<iovec, 8> vectors;
    vectors.push_back({prefix, sizeof(prefix)});
    for (const ByteSpan& piece : pieces) {
      if (piece.empty()) continue;
      vectors.push_back({const_cast<uint8_t*>(piece.data()), piece.size()});
    }
    absl::Status sent =
        SendAll(absl::MakeSpan(vectors), size + kMessagePrefixBytes, deadline);
    if (sent.ok()) messages_sent_.fetch_add(1, std::memory_order_relaxed);
    return sent;
  }

  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    while (true) {
      if (is_broken_.load(std::memory_order_acquire)) return broken();
      if (!in_message_ && prefix_got_ == kMessagePrefixBytes) {
        absl::Status begun = BeginMessage();
        if (!begun.ok()) return Break(begun);
      }
      if (in_message_ && message_got_ == message_.size()) {
        in_message_ = false;
        messages_received_.fetch_add(1, std::memory_order_relaxed);
        return std::move(message_);
      }
      const IoResult received = ReceiveSome();
      if (received.kind == IoResult::kMoved) continue;
      if (received.kind == IoResult::kClosed) return Break(ClosedByPeer());
      if (!received.has_to_wait()) {
        return Break(absl::UnavailableError(
            absl::StrCat("receive from ", peer_, " failed: ", received.error)));
      }
      if (Wait(received, deadline) == SocketWait::kTimedOut) {
        return absl::DeadlineExceededError(
            absl::StrCat("receive from ", peer_, " timed out"));
      }
    }
  }

  void Cancel(absl::Status reason) override {
    // The status is what later calls return; nobody waits for it here.
    Break(CancelReason(reason)).IgnoreError();
  }

  ChannelCapabilities capabilities() const override {
    ChannelCapabilities capabilities;
    capabilities.max_message_bytes = max_message_bytes_;
    capabilities.name = stream_->name();
    capabilities.peer_identity = stream_->peer_identity();
    return capabilities;
  }

  ChannelCounters counters() const override {
    ChannelCounters counters;
    counters.messages_sent = messages_sent_.load(std::memory_order_relaxed);
    counters.messages_received =
        messages_received_.load(std::memory_order_relaxed);
    counters.bytes_sent = bytes_sent_.load(std::memory_order_relaxed);
    counters.bytes_received = bytes_received_.load(std::memory_order_relaxed);
    const LinkFigures link = ReadLinkFigures(stream_->fd());
    counters.busy_seconds = link.busy_seconds;
    counters.bytes_per_second = link.bytes_per_second;
    counters.round_trip_seconds = link.round_trip_seconds;
    return counters;
  }

  std::string peer() const override { return peer_; }

 private:
  absl::Status broken() const {
    MutexLock lock(&mutex_);
    return broken_;
  }

  // Closes both directions, which wakes every blocked call; the first reason
  // stays and is returned. The descriptor lives until the destructor.
  absl::Status Break(const absl::Status& status) {
    MutexLock lock(&mutex_);
    if (broken_.ok()) {
      broken_ = status;
      is_broken_.store(true, std::memory_order_release);
      stream_->Close();
    }
    return broken_;
  }

  absl::Status SendAll(absl::Span<iovec> vectors, int64_t size,
                       Deadline deadline) {
    int64_t left = size;
    while (left > 0) {
      if (is_broken_.load(std::memory_order_acquire)) return broken();
      const IoResult sent = stream_->Send(
          vectors.subspan(0, std::min(vectors.size(), kMaxVectors)));
      if (sent.kind == IoResult::kMoved) {
        left -= static_cast<int64_t>(sent.bytes);
        bytes_sent_.fetch_add(static_cast<int64_t>(sent.bytes),
                              std::memory_order_relaxed);
        vectors = Skip(vectors, sent.bytes);
        continue;
      }
      if (!sent.has_to_wait()) {
        return Break(absl::UnavailableError(
            absl::StrCat("send to ", peer_, " failed: ", sent.error)));
      }
      if (Wait(sent, deadline) == SocketWait::kTimedOut) {
        return Break(absl::DeadlineExceededError(
            absl::StrCat("send to ", peer_, " timed out after ", size - left,
                         " of ", size, " bytes: the peer does not read")));
      }
    }
    return absl::OkStatus();
  }

  static absl::Span<iovec> Skip(absl::Span<iovec> vectors, size_t bytes) {
    while (!vectors.empty() && bytes >= vectors.front().iov_len) {
      bytes -= vectors.front().iov_len;
      vectors.remove_prefix(1);
    }
    if (bytes > 0) {
      iovec& first = vectors.front();
      first.iov_base = static_cast<uint8_t*>(first.iov_base) + bytes;
      first.iov_len -= bytes;
    }
    return vectors;
  }

  absl::Status BeginMessage() {
    const uint64_t size = LoadLittleEndian<uint64_t>(prefix_);
    if (size > static_cast<uint64_t>(max_message_bytes_)) {
      return absl::DataLossError(
          absl::StrCat("message from ", peer_, " says it has ", size,
                       " bytes, expected at most ", max_message_bytes_));
    }
    DP_ASSIGN_OR_RETURN(message_, AllocateMessage(static_cast<int64_t>(size)));
    message_got_ = 0;
    prefix_got_ = 0;
    in_message_ = true;
    return absl::OkStatus();
  }

  SocketWait Wait(const IoResult& result, Deadline deadline) const {
    return WaitForSocket(stream_->fd(), result.kind == IoResult::kWaitToWrite,
                         -1, deadline);
  }

  // The rest of the message and, behind it, the prefix of the next.
  IoResult ReceiveSome() {
    iovec vectors[2];
    size_t num_vectors = 0;
    const int64_t wanted = in_message_ ? message_.size() - message_got_ : 0;
    if (wanted > 0) {
      vectors[num_vectors++] = {message_.data() + message_got_,
                                static_cast<size_t>(wanted)};
    }
    vectors[num_vectors++] = {
        prefix_ + prefix_got_,
        static_cast<size_t>(kMessagePrefixBytes - prefix_got_)};
    const IoResult result = stream_->Receive({vectors, num_vectors});
    if (result.kind == IoResult::kMoved) {
      const int64_t received = static_cast<int64_t>(result.bytes);
      bytes_received_.fetch_add(received, std::memory_order_relaxed);
      const int64_t to_message = std::min(received, wanted);
      message_got_ += to_message;
      prefix_got_ += received - to_message;
    }
    return result;
  }

  absl::Status ClosedByPeer() const {
    if (in_message_) {
      return absl::UnavailableError(
          absl::StrCat("receive from ", peer_,
                       " failed: the peer closed the connection after ",
                       message_got_, " of ", message_.size(), " bytes"));
    }
    return absl::UnavailableError(absl::StrCat(
        "receive from ", peer_, " failed: the peer closed the connection",
        prefix_got_ > 0 ? " within a message's length" : ""));
  }

  const std::unique_ptr<ByteStream> stream_;
  const std::string peer_;
  const int64_t max_message_bytes_;

  std::atomic<bool> is_broken_{false};
  std::atomic<int64_t> messages_sent_{0};
  std::atomic<int64_t> messages_received_{0};
  std::atomic<int64_t> bytes_sent_{0};
  std::atomic<int64_t> bytes_received_{0};

  mutable Mutex mutex_;
  absl::Status broken_ DP_GUARDED_BY(mutex_);

  // What was received so far; touched by the receiving thread only.
  uint8_t prefix_[kMessagePrefixBytes];
  int64_t prefix_got_ = 0;
  bool in_message_ = false;
  Buffer message_;
  int64_t message_got_ = 0;
};

}  // namespace

std::unique_ptr<Channel> CreateTcpChannel(std::unique_ptr<ByteStream> stream,
                                          std::string peer,
                                          int64_t max_message_bytes) {
  return std::make_unique<TcpChannel>(std::move(stream), std::move(peer),
                                      max_message_bytes);
}

void TuneSocket(int fd, int buffer_bytes) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (buffer_bytes <= 0) return;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof(buffer_bytes));
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof(buffer_bytes));
}

}  // namespace deltapipe
