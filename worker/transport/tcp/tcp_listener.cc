#include "worker/transport/tcp/tcp_listener.h"

#include <array>
#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/read.hpp>
#include <asio/steady_timer.hpp>
#include <asio/write.hpp>
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

std::string EndpointText(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6()
             ? absl::StrCat("[", host, "]:", endpoint.port())
             : absl::StrCat(host, ":", endpoint.port());
}

// One handshake. Its pending operations own it; the time-out closes the socket,
// which ends them.
class HandshakeSession : public std::enable_shared_from_this<HandshakeSession> {
 public:
  HandshakeSession(tcp::socket socket, TcpListener::OnConnection on_connection)
      : socket_(std::move(socket)),
        timer_(socket_.get_executor()),
        on_connection_(std::move(on_connection)) {
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
    asio::async_read(socket_, asio::buffer(prefix_),
                     [self](const asio::error_code& error, size_t) {
                       if (error) return self->Finish();
                       self->OnPrefix();
                     });
  }

 private:
  void OnPrefix() {
    auto hello = ParseHelloPrefix(prefix_);
    if (!hello.ok()) {
      LOG_WARNING << "closed a connection from " << from_ << ": "
                  << std::string(hello.status().message());
      return Finish();
    }
    if (hello->version != kTransportProtocolVersion) {
      return Answer(HandshakeVerdict::kOtherVersion,
                    absl::StrCat("transport protocol version ", hello->version,
                                 ", expected ", kTransportProtocolVersion,
                                 ": run the same release everywhere"));
    }
    if (hello->name_bytes == 0 || hello->name_bytes > kMaxChannelNameBytes) {
      return Answer(
          HandshakeVerdict::kBadName,
          absl::StrCat("channel name of ", hello->name_bytes,
                       " bytes, expected 1 to ", kMaxChannelNameBytes));
    }
    name_.resize(hello->name_bytes);
    auto self = shared_from_this();
    asio::async_read(socket_, asio::buffer(&name_[0], name_.size()),
                     [self](const asio::error_code& error, size_t) {
                       if (error) return self->Finish();
                       self->Answer(HandshakeVerdict::kOk, "");
                     });
  }

  void Answer(HandshakeVerdict verdict, const std::string& reason) {
    if (verdict != HandshakeVerdict::kOk) {
      LOG_WARNING << "refused a connection from " << from_ << ": " << reason;
    }
    answer_ = EncodeAnswer(verdict, reason);
    auto self = shared_from_this();
    asio::async_write(socket_, asio::buffer(answer_),
                      [self, verdict](const asio::error_code& error, size_t) {
                        if (!error && verdict == HandshakeVerdict::kOk)
                          self->HandOn();
                        self->Finish();
                      });
  }

  void HandOn() {
    asio::error_code error;
    const int fd = socket_.release(error);
    if (error) return;
    on_connection_(name_, UniqueFd(fd), from_);
  }

  void Finish() { timer_.cancel(); }

  tcp::socket socket_;
  asio::steady_timer timer_;
  const TcpListener::OnConnection on_connection_;
  std::string from_;
  std::array<uint8_t, kHandshakePrefixBytes> prefix_;
  std::string name_;
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
          std::make_shared<HandshakeSession>(std::move(socket), on_connection_)
              ->Start(options_.handshake_within);
          AcceptNext();
        });
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
