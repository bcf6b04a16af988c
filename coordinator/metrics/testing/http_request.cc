#include "coordinator/metrics/testing/http_request.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace deltapipe {

int ConnectTo(const std::string& address) {
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(
      std::atoi(address.substr(address.rfind(':') + 1).c_str())));
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval limit = {20, 0};
  setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  if (connect(connection, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) {
    close(connection);
    return -1;
  }
  return connection;
}

std::string HttpExchange(const std::string& address,
                         const std::string& request) {
  const int connection = ConnectTo(address);
  if (connection < 0) return "no connection";
  size_t sent = 0;
  while (sent < request.size()) {
    const ssize_t n = send(connection, request.data() + sent,
                           request.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) break;
    sent += static_cast<size_t>(n);
  }
  std::string answer;
  char buffer[65536];
  ssize_t n;
  while ((n = recv(connection, buffer, sizeof(buffer), 0)) > 0) {
    answer.append(buffer, static_cast<size_t>(n));
  }
  close(connection);
  return answer;
}

std::string HttpGet(const std::string& address, const std::string& path) {
  return HttpExchange(
      address,
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", address, "\r\n\r\n"));
}

std::string HttpBody(const std::string& answer) {
  const size_t end = answer.find("\r\n\r\n");
  return end == std::string::npos ? std::string() : answer.substr(end + 4);
}

}  // namespace deltapipe
