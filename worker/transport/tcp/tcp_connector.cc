#include "worker/transport/tcp/tcp_connector.h"

#include <sys/socket.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"
#include "worker/transport/tcp/handshake.h"
#include "worker/transport/tcp/tcp_channel.h"

namespace deltapipe {
namespace {

using asio::ip::tcp;
using std::chrono::milliseconds;

/// For an endpoint of a name that has several, such as IPv6 before IPv4.
constexpr std::chrono::seconds kOneOfManyEndpoints(5);

// One attempt's error: a later attempt may succeed, unless it is final.
struct Failure {
  absl::Status status;
  bool is_final = false;
};

Failure Retry(const std::string& what) {
  return {absl::UnavailableError(what), false};
}
Failure Final(absl::Status status) { return {std::move(status), true}; }

class Attempt {
 public:
  Attempt(const ConnectOptions& options, Deadline deadline)
      : options_(options), deadline_(deadline) {}

  Failure Run(const tcp::endpoint& endpoint, const std::string& channel_name,
              std::unique_ptr<ByteStream>* connected) {
    UniqueFd made(socket(endpoint.protocol().family(),
                         SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (made.get() < 0) return Retry(ErrnoText(errno));
    TuneSocket(made.get(), options_.socket_buffer_bytes);
    socket_fd_ = made.get();
    stream_ =
        options_.tls == nullptr
            ? MakePlainStream(std::move(made))
            : MakeTlsStream(std::move(made), TlsRole::kConnect, *options_.tls);
    if (stream_ == nullptr) return Retry("no memory for a TLS session");
    Failure failure = Open(endpoint);
    if (failure.status.ok()) failure = Secure();
    if (failure.status.ok()) failure = Introduce(channel_name);
    if (failure.status.ok()) *connected = std::move(stream_);
    return failure;
  }

 private:
  Failure Open(const tcp::endpoint& endpoint) {
    if (connect(socket_fd_, endpoint.data(),
                static_cast<socklen_t>(endpoint.size())) != 0 &&
        errno != EINPROGRESS) {
      return Retry(ErrnoText(errno));
    }
    Failure failure = Wait(true, "no answer to the connection request");
    if (!failure.status.ok()) return failure;
    int error = 0;
    socklen_t error_size = sizeof(error);
    getsockopt(socket_fd_, SOL_SOCKET, SO_ERROR, &error, &error_size);
    if (error != 0) return Retry(ErrnoText(error));
    // Connecting to a free port of this machine's ephemeral range can meet
    // itself: both ends are then the same socket.
    tcp::endpoint own;
    socklen_t own_size = static_cast<socklen_t>(own.capacity());
    if (getsockname(socket_fd_, own.data(), &own_size) == 0) {
      own.resize(own_size);
      if (own == endpoint) return Retry("Connection refused");
    }
    return {};
  }

  Failure Secure() {
    while (true) {
      const IoResult result = stream_->ShakeHands();
      if (result.kind == IoResult::kMoved) return {};
      Failure failure = Explain(result, "no answer to the TLS handshake");
      if (!failure.status.ok()) return failure;
    }
  }

  // Ok once `result` has been waited for.
  Failure Explain(const IoResult& result, const std::string& on_time_out) {
    switch (result.kind) {
      case IoResult::kWaitToRead:
        return Wait(false, on_time_out);
      case IoResult::kWaitToWrite:
        return Wait(true, on_time_out);
      case IoResult::kClosed:
        return Retry(absl::StrCat(
            "the peer closed the connection during the handshake", hint()));
      case IoResult::kRefused:
        return Final(absl::PermissionDeniedError(
            absl::StrCat("TLS handshake failed: ", result.error)));
      case IoResult::kNotTls:
        return Final(absl::FailedPreconditionError(
            "what listens there does not speak TLS: was its worker started "
            "with an identity (--join-token), too?"));
      default:
        return Retry(absl::StrCat("handshake: ", result.error, hint()));
    }
  }

  const char* hint() const {
    return options_.tls != nullptr ? " (is it secured with TLS, too?)" : "";
  }

  Failure Introduce(const std::string& channel_name) {
    std::vector<uint8_t> hello = EncodeHello(channel_name);
    const iovec piece{hello.data(), hello.size()};
    while (true) {
      const IoResult sent = stream_->Send({&piece, 1});
      // A fresh socket's buffer always has room for it.
      if (sent.kind == IoResult::kMoved && sent.bytes == hello.size()) break;
      Failure failure = Explain(sent, "the hello could not be sent");
      if (!failure.status.ok()) return failure;
    }
    uint8_t prefix[kHandshakePrefixBytes];
    Failure failure = Read(prefix, sizeof(prefix));
    if (!failure.status.ok()) return failure;
    auto answer = ParseAnswerPrefix(prefix);
    if (!answer.ok()) {
      return Final(absl::FailedPreconditionError(
          "something other than a deltapipe worker listens there"));
    }
    if (answer->verdict == HandshakeVerdict::kOk) return {};
    std::string reason(answer->reason_bytes, '\0');
    failure = Read(reinterpret_cast<uint8_t*>(&reason[0]), reason.size());
    if (!failure.status.ok()) return failure;
    return Final(absl::FailedPreconditionError(
        absl::StrCat("the peer refused: ", reason)));
  }

  Failure Read(uint8_t* bytes, size_t size) {
    size_t got = 0;
    while (got < size) {
      const iovec piece{bytes + got, size - got};
      const IoResult received = stream_->Receive({&piece, 1});
      if (received.kind == IoResult::kMoved) {
        got += received.bytes;
        continue;
      }
      Failure failure = Explain(received, "no answer to the handshake");
      if (!failure.status.ok()) return failure;
    }
    return {};
  }

  Failure Wait(bool for_write, const std::string& on_time_out) {
    do {
      if (options_.is_cancelled != nullptr && *options_.is_cancelled) {
        return Final(CalledOff());
      }
      const Deadline slice = std::min(deadline_, Deadline::After(kCancelPoll));
      switch (WaitForSocket(socket_fd_, for_write, options_.wake_fd, slice)) {
        case SocketWait::kReady:
          return {};
        case SocketWait::kWoken:
          return Final(absl::AbortedError("woken"));
        case SocketWait::kTimedOut:
          break;
      }
    } while (!deadline_.has_passed());
    return Retry(on_time_out);
  }

  const ConnectOptions& options_;
  const Deadline deadline_;
  int socket_fd_ = -1;
  std::unique_ptr<ByteStream> stream_;
};

absl::StatusOr<std::vector<tcp::endpoint>> Resolve(
    const std::pair<std::string, std::string>& host_port) {
  asio::io_context context;
  tcp::resolver resolver(context);
  asio::error_code error;
  auto results = resolver.resolve(host_port.first, host_port.second, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(
        "cannot resolve ", host_port.first, ": ", error.message()));
  }
  return std::vector<tcp::endpoint>(results.begin(), results.end());
}

}  // namespace

absl::StatusOr<std::pair<std::string, std::string>> SplitHostPort(
    const std::string& address) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, std::min(colon, address.size()));
  const std::string port =
      colon == std::string::npos ? "" : address.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    host.clear();
  }
  const bool is_number =
      !port.empty() && port.size() <= 5 &&
      std::all_of(port.begin(), port.end(),
                  [](char c) { return c >= '0' && c <= '9'; }) &&
      std::stoi(port) <= 65535;
  if (host.empty() || !is_number) {
    return absl::InvalidArgumentError(absl::StrCat(
        "bad address: expected host:port or [host]:port, got ", address));
  }
  return std::make_pair(host, port);
}

absl::StatusOr<std::unique_ptr<ByteStream>> ConnectTcp(
    const std::string& address, const std::string& channel_name,
    const ConnectOptions& options, Deadline deadline) {
  DP_ASSIGN_OR_RETURN(const auto host_port, SplitHostPort(address));
  absl::Status last = absl::UnavailableError("not tried");
  milliseconds pause(5);
  for (int num_attempts = 1;; ++num_attempts) {
    auto endpoints = Resolve(host_port);
    if (!endpoints.ok()) last = endpoints.status();
    const size_t num_endpoints = endpoints.ok() ? endpoints->size() : 0;
    for (size_t i = 0; i < num_endpoints; ++i) {
      // One that does not answer leaves time for the others.
      const Deadline attempt_end =
          i + 1 < num_endpoints
              ? std::min(deadline, Deadline::After(kOneOfManyEndpoints))
              : deadline;
      std::unique_ptr<ByteStream> connected;
      Failure failure = Attempt(options, attempt_end)
                            .Run((*endpoints)[i], channel_name, &connected);
      if (failure.status.ok()) return connected;
      if (failure.is_final) return failure.status;
      last = failure.status;
    }
    const auto pause_end =
        std::min(deadline.time_point(), Deadline::Clock::now() + pause);
    if (WaitForSocket(options.wake_fd, false, -1, Deadline::At(pause_end)) ==
        SocketWait::kReady) {
      return absl::AbortedError("woken");
    }
    if (options.is_cancelled != nullptr && *options.is_cancelled) {
      return CalledOff();
    }
    if (deadline.has_passed()) {
      return absl::DeadlineExceededError(
          absl::StrCat("gave up after ", num_attempts, " attempts, the last: ",
                       last.message(), "; is a worker listening there?"));
    }
    pause = std::min(pause * 2, milliseconds(200));
  }
}

}  // namespace deltapipe
