#include "worker/transport/tcp/socket_wait.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace deltapipe {

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) close(fd_);
}

SocketWait WaitForSocket(int fd, bool for_write, int wake_fd,
                         Deadline deadline) {
  pollfd fds[2] = {{fd, static_cast<short>(for_write ? POLLOUT : POLLIN), 0},
                   {wake_fd, POLLIN, 0}};
  while (true) {
    timespec left{};
    if (!deadline.is_infinite()) {
      const auto remaining = deadline.remaining().count();
      left.tv_sec = remaining / 1000000000;
      left.tv_nsec = remaining % 1000000000;
    }
    const int result = ppoll(fds, wake_fd >= 0 ? 2 : 1,
                             deadline.is_infinite() ? nullptr : &left, nullptr);
    if (result > 0) {
      return fds[1].revents != 0 ? SocketWait::kWoken : SocketWait::kReady;
    }
    if (result == 0) return SocketWait::kTimedOut;
    // Only EINTR is left: the descriptors are ours and the arguments are sound.
    if (errno != EINTR) return SocketWait::kReady;
  }
}

std::string ErrnoText(int error_number) {
  return std::generic_category().message(error_number);
}

}  // namespace deltapipe
