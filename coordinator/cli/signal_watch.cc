#include "coordinator/cli/signal_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

namespace deltapipe {
namespace {

void Post(int event_fd) {
  const uint64_t one = 1;
  // Cannot block or fail: the counter never comes near its end.
  while (write(event_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}

}  // namespace

SignalWatch::SignalWatch(std::function<void(int, int)> on_signal)
    : on_signal_(std::move(on_signal)) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, &former_mask_);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  came_fd_ = eventfd(0, EFD_CLOEXEC);
  thread_ = Thread("signals", [this] { Loop(); });
}

SignalWatch::~SignalWatch() {
  Post(stop_fd_);
  thread_.Join();
  pthread_sigmask(SIG_SETMASK, &former_mask_, nullptr);
  close(signal_fd_);
  close(stop_fd_);
  close(came_fd_);
}

void SignalWatch::AwaitSignal() {
  pollfd came = {came_fd_, POLLIN, 0};
  while (poll(&came, 1, -1) < 0 && errno == EINTR) {
  }
}

void SignalWatch::Wake() { Post(came_fd_); }

void SignalWatch::Loop() {
  int count = 0;
  while (true) {
    pollfd sources[] = {{signal_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    if (poll(sources, 2, -1) < 0) continue;
    if (sources[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(signal_fd_, &info, sizeof(info)) != sizeof(info)) continue;
    const int signal = static_cast<int>(info.ssi_signo);
    int none = 0;
    first_signal_.compare_exchange_strong(none, signal);
    if (++count == 1) Post(came_fd_);
    on_signal_(signal, count);
  }
}

int ExitCodeOfSignal(int signal) { return 128 + signal; }

}  // namespace deltapipe
