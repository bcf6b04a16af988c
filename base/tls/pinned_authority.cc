#include "base/tls/pinned_authority.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/tls/certificate.h"
#include "base/tls/openssl_handle.h"
#include "base/tls/secret.h"

namespace deltapipe {
namespace {

constexpr size_t kHashBytes = 7 + 64;  // "sha256:" and its digits
// gRPC serves HTTP/2 only.
constexpr unsigned char kProtocols[] = {2, 'h', '2'};

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

  bool Await(short events, Deadline deadline) const {
    pollfd poll_fd = {fd_, events, 0};
    while (true) {
      const auto left = std::min<int64_t>(
          deadline.remaining().count() / 1'000'000 + 1, 60'000);
      const int ready = poll(&poll_fd, 1, static_cast<int>(left));
      if (ready > 0) return true;
      if (deadline.has_passed()) return false;
    }
  }

 private:
  int fd_;
};

struct FreeAddresses {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};

absl::StatusOr<Socket> Connect(const std::string& address, Deadline deadline) {
  const size_t colon = address.rfind(':');
  std::string host = address.substr(0, std::min(colon, address.size()));
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  }
  if (colon == std::string::npos || host.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("bad address: expected HOST:PORT, got '", address, "'"));
  }
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(
      host.c_str(), address.substr(colon + 1).c_str(), &hints, &found);
  if (resolved != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot resolve ", address, ": ", gai_strerror(resolved)));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> owner(found);
  std::string last = "no address";
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Socket socket(
        ::socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    int error = socket.get() < 0 ? errno : 0;
    if (error == 0 && connect(socket.get(), at->ai_addr, at->ai_addrlen) != 0 &&
        errno != EINPROGRESS) {
      error = errno;
    } else if (error == 0 && !socket.Await(POLLOUT, deadline)) {
      error = ETIMEDOUT;
    } else if (error == 0) {
      socklen_t size = sizeof(error);
      getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) return socket;
    last = strerror(error);
  }
  return absl::UnavailableError(absl::StrCat(
      "no coordinator answers at ", address, ": ", last,
      ": check the address and that `deltapipe coordinator` runs there"));
}

absl::Status ShakeHands(SSL* session, const Socket& socket,
                        const std::string& address, Deadline deadline) {
  while (true) {
    const int result = SSL_do_handshake(session);
    if (result == 1) return absl::OkStatus();
    const int error = SSL_get_error(session, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
      return absl::UnavailableError(
          absl::StrCat("what listens at ", address, " does not speak TLS 1.3 (",
                       TakeOpensslError(),
                       "): is it a coordinator that was started with --tls?"));
    }
    if (!socket.Await(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT,
                      deadline)) {
      return absl::UnavailableError(absl::StrCat(
          "what listens at ", address,
          " did not answer the TLS handshake in time: is it a coordinator "
          "that was started with --tls?"));
    }
  }
}

}  // namespace

absl::StatusOr<std::string> FetchPinnedAuthority(const std::string& address,
                                                 const std::string& hash,
                                                 Clock* clock,
                                                 Deadline deadline) {
  if (hash.size() != kHashBytes || !absl::StartsWith(hash, "sha256:")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "bad hash of an authority: expected sha256: and 64 hexadecimal digits, "
        "as the coordinator printed them, got '",
        hash, "'"));
  }
  DP_ASSIGN_OR_RETURN(const Socket socket, Connect(address, deadline));
  const OpensslPtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr) return absl::ResourceExhaustedError("no memory");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  // Whose certificate it is, is seen below.
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  const OpensslPtr<SSL> session(SSL_new(context.get()));
  if (session == nullptr || SSL_set_fd(session.get(), socket.get()) != 1) {
    return absl::ResourceExhaustedError("no memory");
  }
  SSL_set_alpn_protos(session.get(), kProtocols, sizeof(kProtocols));
  SSL_set_connect_state(session.get());
  DP_RETURN_IF_ERROR(ShakeHands(session.get(), socket, address, deadline));

  std::vector<Certificate> chain;
  const STACK_OF(X509)* const shown = SSL_get_peer_cert_chain(session.get());
  for (int i = 0; shown != nullptr && i < sk_X509_num(shown); ++i) {
    X509* const certificate = sk_X509_value(shown, i);
    X509_up_ref(certificate);
    chain.emplace_back(OpensslPtr<X509>(certificate));
  }
  for (const Certificate& candidate : chain) {
    if (!candidate.is_authority() ||
        !EqualInConstantTime(candidate.public_key_hash(), hash)) {
      continue;
    }
    DP_RETURN_IF_ERROR(
        Annotate(chain.front().CheckSignedBy(candidate, clock->WallMillis()),
                 absl::StrCat("the server at ", address)));
    return candidate.ToPem();
  }
  return absl::PermissionDeniedError(absl::StrCat(
      "the server at ", address, " shows the authority ",
      chain.empty() ? "of nobody" : chain.back().public_key_hash(),
      ", expected ", hash,
      ": another coordinator listens there, or somebody between here and it"));
}

}  // namespace deltapipe
