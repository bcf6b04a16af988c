// SignalWatch: SIGINT and SIGTERM as calls on a thread of their own.
//
// Blocks both in the thread that creates it, hence in every thread started
// later: create it before gRPC or anything else that starts threads. Processes
// started meanwhile inherit the blocking unless their launcher clears it.
#ifndef DELTAPIPE_COORDINATOR_CLI_SIGNAL_WATCH_H_
#define DELTAPIPE_COORDINATOR_CLI_SIGNAL_WATCH_H_

#include <signal.h>

#include <atomic>
#include <functional>

#include "base/thread.h"

namespace deltapipe {

class SignalWatch {
 public:
  /// `on_signal(signal, count)`: count is 1 at the first of them.
  explicit SignalWatch(std::function<void(int signal, int count)> on_signal);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;

  /// The first signal that came; 0 if none has.
  int first_signal() const { return first_signal_; }

  /// Blocks until a signal has come, or Wake was called.
  void AwaitSignal();
  /// From any thread.
  void Wake();

 private:
  void Loop();

  const std::function<void(int, int)> on_signal_;
  sigset_t former_mask_;
  int signal_fd_ = -1;
  int stop_fd_ = -1;
  int came_fd_ = -1;
  std::atomic<int> first_signal_{0};
  Thread thread_;
};

/// 130 for SIGINT, 143 for SIGTERM.
int ExitCodeOfSignal(int signal);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_SIGNAL_WATCH_H_
