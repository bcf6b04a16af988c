#include "worker/transport/tcp/tcp_transport.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/transport/held_connections.h"
#include "worker/transport/message.h"
#include "worker/transport/tcp/tcp_channel.h"
#include "worker/transport/tcp/tcp_connector.h"
#include "worker/transport/tcp/tcp_listener.h"

namespace deltapipe {
namespace {

class TcpTransport : public Transport {
 public:
  TcpTransport(const TcpOptions& options, UniqueFd wake)
      : options_(options), wake_(std::move(wake)) {}

  ~TcpTransport() override {
    Cancel(absl::CancelledError("the transport was destroyed"));
  }

  absl::Status Listen(const std::string& listen_address) {
    DP_ASSIGN_OR_RETURN(
        listener_,
        TcpListener::Create(
            listen_address, options_,
            [this](const std::string& name, std::unique_ptr<ByteStream> stream,
                   const std::string& from) {
              held_.Add(name,
                        CreateTcpChannel(std::move(stream),
                                         absl::StrCat(from, " (", name, ")"),
                                         options_.max_message_bytes));
            }));
    return absl::OkStatus();
  }

  std::string address() const override { return listener_->address(); }

  using Transport::Connect;
  absl::StatusOr<std::unique_ptr<Channel>> Connect(
      const std::string& address, const std::string& name, Deadline deadline,
      const std::atomic<bool>* is_cancelled) override {
    DP_RETURN_IF_ERROR(CheckChannelName(name));
    ConnectOptions connect;
    connect.socket_buffer_bytes = options_.socket_buffer_bytes;
    connect.wake_fd = wake_.get();
    connect.is_cancelled = is_cancelled;
    if (options_.tls != nullptr) {
      connect.tls = options_.tls();
      if (connect.tls == nullptr) {
        return absl::FailedPreconditionError(
            "there is no certificate to connect with: join the cluster first");
      }
    }
    absl::StatusOr<std::unique_ptr<ByteStream>> stream =
        ConnectTcp(address, name, connect, deadline);
    if (stream.ok()) {
      return CreateTcpChannel(*std::move(stream),
                              absl::StrCat(address, " (", name, ")"),
                              options_.max_message_bytes);
    }
    {
      MutexLock lock(&mutex_);
      if (!cancelled_.ok()) return cancelled_;
    }
    return Annotate(stream.status(),
                    absl::StrCat("connect to ", address, " (", name, ")"));
  }

  absl::StatusOr<std::unique_ptr<Channel>> Accept(const std::string& name,
                                                  Deadline deadline) override {
    DP_RETURN_IF_ERROR(CheckChannelName(name));
    return held_.Take(name, address(), deadline);
  }

  void Cancel(absl::Status reason) override {
    {
      MutexLock lock(&mutex_);
      if (!cancelled_.ok()) return;
      cancelled_ = CancelReason(reason);
    }
    const uint64_t one = 1;
    // Cannot fail: the counter is far from its end.
    [[maybe_unused]] const ssize_t written =
        write(wake_.get(), &one, sizeof(one));
    if (listener_ != nullptr) listener_->Stop();
    held_.Cancel(CancelReason(reason));
  }

 private:
  const TcpOptions options_;
  const UniqueFd wake_;  // readable once cancelled
  HeldConnections held_;
  std::unique_ptr<TcpListener> listener_;

  Mutex mutex_;
  absl::Status cancelled_ DP_GUARDED_BY(mutex_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> CreateTcpTransport(
    const std::string& listen_address, const TcpOptions& options) {
  UniqueFd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot create a transport: ", ErrnoText(errno)));
  }
  auto transport = std::make_unique<TcpTransport>(options, std::move(wake));
  DP_RETURN_IF_ERROR(transport->Listen(listen_address));
  return transport;
}

}  // namespace deltapipe
