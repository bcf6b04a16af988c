#include "worker/transport/tcp/tcp_listener.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <array>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/transport/message.h"
#include "worker/transport/tcp/handshake.h"
#include "worker/transport/tcp/tcp_channel.h"
#include "worker/transport/tcp/tcp_connector.h"

namespace deltapipe {
namespace {

using asio::ip::tcp;

/// How what a TLS client sends begins.
constexpr uint8_t kTlsHandshake = 0x16;
constexpr uint8_t kTlsMajor = 3;
constexpr char kNeedsTlsText[] =
    "it takes TLS connections only: start this worker with an identity, too "
    "(--join-token)";

std::string EndpointText(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6()
             ? absl::StrCat("[", host, "]:", endpoint.port())
             : absl::StrCat(host, ":", endpoint.port());
}

// A second descriptor of the same socket; none if there are too many.
UniqueFd Duplicate(int fd) { return UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

// One handshake. The wait that is pending owns it; the time-out closes the
// socket, which ends the wait. The stream has its own descriptor of the socket,
// so that it can be handed on.
class HandshakeSession : public std::enable_shared_from_this<HandshakeSession> {
 public:
  HandshakeSession(tcp::socket socket, std::unique_ptr<ByteStream> stream,
                   TcpListener::OnConnection on_connection)
      : socket_(std::move(socket)),
        timer_(socket_.get_executor()),
        on_connection_(std::move(on_connection)),
        stream_(std::move(stream)) {
    asio::error_code error;
    const tcp::endpoint remote = socket_.remote_endpoint(error);
    from_ = error ? "an unknown address" : EndpointText(remote);
  }

  void Start(Nanos within) {
    auto self = shared_from_this();
    timer_.expires_after(within);
    timer_.async_wait([self](const asio::error_code& error) {
      if (error) return;
      asio::error_code ignored;
      self->socket_.close(ignored);
    });
    Proceed();
  }

 private:
  enum class Stage { kSecure, kPrefix, kName, kAnswer, kDrain };

  void Proceed() {
    while (true) {
      const IoResult result = Step();
      if (result.has_to_wait()) {
        return Wait(result.kind == IoResult::kWaitToWrite
                        ? tcp::socket::wait_write
                        : tcp::socket::wait_read);
      }
      if (result.kind != IoResult::kMoved) {
        if (GiveUp(result)) continue;
        return timer_.cancel(), void();
      }
      done_ += result.bytes;
      if (stage_ == Stage::kDrain || done_ < wanted()) continue;
      done_ = 0;
      if (!Advance()) return timer_.cancel(), void();
    }
  }

  void Wait(tcp::socket::wait_type what) {
    auto self = shared_from_this();
    socket_.async_wait(what, [self](const asio::error_code& error) {
      if (!error) self->Proceed();
    });
  }

  size_t wanted() const {
    switch (stage_) {
      case Stage::kPrefix:
        return prefix_.size();
      case Stage::kName:
        return name_.size();
      case Stage::kAnswer:
        return answer_.size();
      default:
        return 0;
    }
  }

  IoResult Step() {
    switch (stage_) {
      case Stage::kSecure:
        return stream_->ShakeHands();
      case Stage::kPrefix:
        return Receive(prefix_.data(), prefix_.size());
      case Stage::kName:
        return Receive(&name_[0], name_.size());
      case Stage::kAnswer: {
        const iovec piece{answer_.data() + done_, answer_.size() - done_};
        return stream_->Send({&piece, 1});
      }
      case Stage::kDrain:
        break;
    }
    uint8_t scratch[4096];
    const ssize_t got = recv(stream_->fd(), scratch, sizeof(scratch), 0);
    if (got > 0) return IoResult::Moved(0);
    const bool would_block = errno == EAGAIN || errno == EWOULDBLOCK;
    return {got < 0 && would_block ? IoResult::kWaitToRead : IoResult::kClosed,
            0, ""};
  }

  IoResult Receive(void* data, size_t size) {
    const iovec piece{static_cast<uint8_t*>(data) + done_, size - done_};
    return stream_->Receive({&piece, 1});
  }

  /// Goes to the next stage; false at the end.
  bool Advance() {
    switch (stage_) {
      case Stage::kSecure:
        stage_ = Stage::kPrefix;
        return true;
      case Stage::kPrefix:
        return OnPrefix();
      case Stage::kName:
        Answer(HandshakeVerdict::kOk, "");
        return true;
      default:
        if (verdict_ == HandshakeVerdict::kOk) {
          on_connection_(name_, std::move(stream_), from_);
        }
        return false;
    }
  }

  /// Says why; true if the peer must still read what it was told.
  bool GiveUp(const IoResult& result) {
    if (stage_ != Stage::kSecure || result.kind == IoResult::kClosed) {
      return false;
    }
    LOG_WARNING << "refused a connection from " << from_
                << ": TLS handshake failed: " << result.error;
    if (result.kind == IoResult::kNotTls) {
      const std::vector<uint8_t> answer =
          EncodeAnswer(HandshakeVerdict::kNeedsTls, kNeedsTlsText);
      // It fits into an empty buffer; to say why is a courtesy.
      [[maybe_unused]] const ssize_t sent =
          send(stream_->fd(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
    // Closing with unread bytes would reset the connection, and the peer might
    // lose the alert that says why.
    shutdown(stream_->fd(), SHUT_WR);
    stage_ = Stage::kDrain;
    return true;
  }

  bool OnPrefix() {
    auto hello = ParseHelloPrefix(prefix_);
    if (!hello.ok()) {
      LOG_WARNING << "closed a connection from " << from_ << ": "
                  << (prefix_[0] == kTlsHandshake && prefix_[1] == kTlsMajor
                          ? "it speaks TLS, and this worker plain text"
                          : std::string(hello.status().message()));
      return false;
    }
    if (hello->version != kTransportProtocolVersion) {
      Answer(HandshakeVerdict::kOtherVersion,
             absl::StrCat("transport protocol version ", hello->version,
                          ", expected ", kTransportProtocolVersion,
                          ": run the same release everywhere"));
      return true;
    }
    if (hello->name_bytes == 0 || hello->name_bytes > kMaxChannelNameBytes) {
      Answer(HandshakeVerdict::kBadName,
             absl::StrCat("channel name of ", hello->name_bytes,
                          " bytes, expected 1 to ", kMaxChannelNameBytes));
      return true;
    }
    name_.resize(hello->name_bytes);
    stage_ = Stage::kName;
    return true;
  }

  void Answer(HandshakeVerdict verdict, const std::string& reason) {
    if (verdict != HandshakeVerdict::kOk) {
      LOG_WARNING << "refused a connection from " << from_ << ": " << reason;
    }
    verdict_ = verdict;
    answer_ = EncodeAnswer(verdict, reason);
    stage_ = Stage::kAnswer;
  }

  tcp::socket socket_;  // to wait with
  asio::steady_timer timer_;
  const TcpListener::OnConnection on_connection_;
  std::unique_ptr<ByteStream> stream_;
  std::string from_;
  Stage stage_ = Stage::kSecure;
  size_t done_ = 0;  // bytes of this stage
  std::array<uint8_t, kHandshakePrefixBytes> prefix_;
  std::string name_;
  HandshakeVerdict verdict_ = HandshakeVerdict::kOk;
  std::vector<uint8_t> answer_;
};

absl::Status ListenError(const std::string& address,
                         const asio::error_code& error) {
  if (error == asio::error::address_in_use) {
    return absl::AlreadyExistsError(absl::StrCat(
        "cannot listen on ", address,
        ": the port is in use; stop the program that uses it or choose another "
        "port (0 takes a free one)"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot listen on ", address, ": ", error.message(),
                   "; expected an address of this machine"));
}

class AsioListener : public TcpListener {
 public:
  AsioListener(const TcpOptions& options, OnConnection on_connection)
      : options_(options),
        on_connection_(std::move(on_connection)),
        acceptor_(context_),
        retry_timer_(context_) {}

  ~AsioListener() override { Stop(); }

  absl::Status Listen(const std::string& listen_address) {
    DP_ASSIGN_OR_RETURN(const auto host_port, SplitHostPort(listen_address));
    asio::error_code error;
    tcp::resolver resolver(context_);
    const auto endpoints = resolver.resolve(host_port.first, host_port.second,
                                            tcp::resolver::passive, error);
    if (error || endpoints.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cannot listen on ", listen_address, ": ", error.message()));
    }
    const tcp::endpoint endpoint = *endpoints.begin();
    acceptor_.open(endpoint.protocol(), error);
    if (!error) {
      acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
      TuneSocket(acceptor_.native_handle(), options_.socket_buffer_bytes);
      acceptor_.bind(endpoint, error);
    }
    if (!error) acceptor_.listen(tcp::acceptor::max_listen_connections, error);
    if (error) return ListenError(listen_address, error);
    const tcp::endpoint local = acceptor_.local_endpoint(error);
    if (error) return ListenError(listen_address, error);
    const std::string& host = options_.advertised_host;
    address_ = host.empty() ? EndpointText(local)
               : absl::StrContains(host, ':') && host.front() != '['
                   ? absl::StrCat("[", host, "]:", local.port())
                   : absl::StrCat(host, ":", local.port());
    AcceptNext();
    thread_ = Thread("tcp-listen", [this] { context_.run(); });
    return absl::OkStatus();
  }

  std::string address() const override { return address_; }

  void Stop() override {
    asio::post(context_, [this] {
      asio::error_code ignored;
      acceptor_.close(ignored);
      context_.stop();
    });
    thread_.Join();
  }

 private:
  void AcceptNext() {
    acceptor_.async_accept(
        [this](const asio::error_code& error, tcp::socket socket) {
          if (error == asio::error::operation_aborted) return;
          if (error) return PauseAndAccept(error);
          TuneSocket(socket.native_handle(), 0);
          ShakeHands(std::move(socket));
          AcceptNext();
        });
  }

  void ShakeHands(tcp::socket socket) {
    UniqueFd fd = Duplicate(socket.native_handle());
    std::shared_ptr<const TlsContext> tls;
    if (options_.tls != nullptr) tls = options_.tls();
    std::unique_ptr<ByteStream> stream;
    if (fd.get() >= 0) {
      stream = options_.tls == nullptr ? MakePlainStream(std::move(fd))
               : tls == nullptr
                   ? nullptr
                   : MakeTlsStream(std::move(fd), TlsRole::kAccept, *tls);
    }
    if (stream == nullptr) {
      LOG_WARNING << "closed a connection on " << address_
                  << ": no descriptor, memory or certificate for it";
      return;
    }
    std::make_shared<HandshakeSession>(std::move(socket), std::move(stream),
                                       on_connection_)
        ->Start(options_.handshake_within);
  }

  // Out of descriptors or memory: trying again at once would spin.
  void PauseAndAccept(const asio::error_code& error) {
    LOG_WARNING << "cannot take a connection in on " << address_ << ": "
                << error.message() << "; trying again";
    retry_timer_.expires_after(std::chrono::milliseconds(100));
    retry_timer_.async_wait([this](const asio::error_code& timer_error) {
      if (!timer_error) AcceptNext();
    });
  }

  const TcpOptions options_;
  const OnConnection on_connection_;
  asio::io_context context_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_timer_;
  std::string address_;
  Thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TcpListener>> TcpListener::Create(
    const std::string& listen_address, const TcpOptions& options,
    OnConnection on_connection) {
  auto listener =
      std::make_unique<AsioListener>(options, std::move(on_connection));
  DP_RETURN_IF_ERROR(listener->Listen(listen_address));
  return listener;
}

}  // namespace deltapipe
