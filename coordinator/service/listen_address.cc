#include "coordinator/service/listen_address.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {

std::string ListenAddress::ToString() const {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& text) {
  const absl::Status error = absl::InvalidArgumentError(
      absl::StrCat("cannot listen on '", text,
                   "': expected HOST:PORT, such as 127.0.0.1:50051"));
  ListenAddress address;
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos ||
      !absl::SimpleAtoi(text.substr(colon + 1), &address.port) ||
      address.port < 0 || address.port > 65535) {
    return error;
  }
  address.host = text.substr(0, colon);
  if (address.host.size() > 2 && address.host.front() == '[' &&
      address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  } else if (absl::StrContains(address.host, ':')) {
    return error;
  }
  if (address.host.empty()) return error;
  return address;
}

bool IsLoopback(const std::string& host) {
  if (host == "localhost" || host == "::1") return true;
  // Not a name such as 127.example.com.
  return absl::StartsWith(host, "127.") &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

absl::Status CheckListenAddress(const ListenAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(
      address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (resolved != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot listen on ", address.ToString(), ": ", gai_strerror(resolved),
        ": use an address of this machine"));
  }
  int error = 0;
  const int file =
      socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0);
  if (file < 0) {
    error = errno;
  } else {
    const int on = 1;
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(file, found->ai_addr, found->ai_addrlen) != 0 ||
        listen(file, 1) != 0) {
      error = errno;
    }
    close(file);
  }
  freeaddrinfo(found);
  switch (error) {
    case 0:
      return absl::OkStatus();
    case EADDRINUSE:
      return absl::FailedPreconditionError(absl::StrCat(
          "cannot listen on ", address.ToString(),
          ": the port is in use: stop what listens there, or choose another "
          "port (0 picks a free one)"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("cannot listen on ", address.ToString(), ": ",
                       strerror(error), ": choose a port from 1024 up"));
    case EADDRNOTAVAIL:
      return absl::InvalidArgumentError(
          absl::StrCat("cannot listen on ", address.ToString(), ": ",
                       strerror(error), ": use an address of this machine"));
    default:
      return absl::UnavailableError(absl::StrCat(
          "cannot listen on ", address.ToString(), ": ", strerror(error)));
  }
}

absl::Status CheckMayListen(const ListenAddress& address, bool insecure) {
  if (!IsLoopback(address.host) && !insecure) {
    return absl::PermissionDeniedError(absl::StrCat(
        "will not listen on ", address.ToString(),
        ": others on the network could reach it and nothing is encrypted; "
        "listen on 127.0.0.1, or say --insecure if the network is yours"));
  }
  return CheckListenAddress(address);
}

}  // namespace deltapipe
