#include "worker/transport/tcp/link_figures.h"

// Not netinet/tcp.h, whose tcp_info ends before the fields.
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace deltapipe {

LinkFigures ReadLinkFigures(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  LinkFigures figures;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return figures;
  // The last field of those.
  constexpr size_t kEnd =
      offsetof(tcp_info, tcpi_busy_time) + sizeof(info.tcpi_busy_time);
  if (size < kEnd) return figures;
  figures.busy_seconds = static_cast<double>(info.tcpi_busy_time) * 1e-6;
  figures.round_trip_seconds = static_cast<double>(info.tcpi_rtt) * 1e-6;
  figures.bytes_per_second = static_cast<double>(info.tcpi_delivery_rate);
  return figures;
}

}  // namespace deltapipe
