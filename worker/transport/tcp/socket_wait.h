// Waiting on one non-blocking socket, with a deadline and a way to be woken.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_SOCKET_WAIT_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_SOCKET_WAIT_H_

#include <string>
#include <utility>

#include "base/deadline.h"

namespace deltapipe {

/// Closes a file descriptor when destroyed.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();
  int get() const { return fd_; }

 private:
  int fd_ = -1;
};

enum class SocketWait { kReady, kWoken, kTimedOut };

/// Waits until `fd` is readable (or, with `for_write`, writable), has an error
/// or is closed; or until `wake_fd` (-1: none) is readable; or the deadline.
SocketWait WaitForSocket(int fd, bool for_write, int wake_fd,
                         Deadline deadline);

/// The system's text for `error_number`.
std::string ErrnoText(int error_number);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_SOCKET_WAIT_H_
