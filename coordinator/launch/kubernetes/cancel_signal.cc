#include "coordinator/launch/kubernetes/cancel_signal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace deltapipe {

absl::StatusOr<std::unique_ptr<CancelSignal>> CancelSignal::Create() {
  const int file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (file < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make an eventfd: ", strerror(errno)));
  }
  return std::unique_ptr<CancelSignal>(new CancelSignal(file));
}

CancelSignal::~CancelSignal() { close(file_); }

void CancelSignal::Cancel() {
  is_cancelled_ = true;
  // Fails only if the counter is full, and then it is readable anyway.
  eventfd_write(file_, 1);
}

void CancelSignal::Reset() {
  is_cancelled_ = false;
  eventfd_t count;
  eventfd_read(file_, &count);  // EAGAIN if nobody cancelled
}

bool CancelSignal::WaitUntil(Deadline deadline) const {
  while (!is_cancelled_ && !deadline.has_passed()) {
    // Up to a whole millisecond, and no more than an int holds.
    const auto left = std::min<std::chrono::nanoseconds>(deadline.remaining(),
                                                         std::chrono::hours(1));
    const auto millis = std::chrono::ceil<std::chrono::milliseconds>(left);
    pollfd file = {file_, POLLIN, 0};
    poll(&file, 1, static_cast<int>(millis.count()));
  }
  return !is_cancelled_;
}

}  // namespace deltapipe
