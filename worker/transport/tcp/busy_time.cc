#include "worker/transport/tcp/busy_time.h"

// Not netinet/tcp.h, whose tcp_info ends before the field.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace deltapipe {

double SocketBusySeconds(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  constexpr size_t kEnd =
      offsetof(tcp_info, tcpi_busy_time) + sizeof(info.tcpi_busy_time);
  return size < kEnd ? 0 : static_cast<double>(info.tcpi_busy_time) * 1e-6;
}

}  // namespace deltapipe
