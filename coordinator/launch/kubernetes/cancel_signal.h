// CancelSignal: makes network calls of other threads return at once.
//
// Thread-safe. A file descriptor, so that a call can wait for it beside its
// socket. Owned by whoever may cancel; calls borrow it.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_CANCEL_SIGNAL_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_CANCEL_SIGNAL_H_

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "base/deadline.h"

namespace deltapipe {

class CancelSignal {
 public:
  /// RESOURCE_EXHAUSTED: no more files.
  static absl::StatusOr<std::unique_ptr<CancelSignal>> Create();
  ~CancelSignal();

  /// Wakes every present and future wait, until Reset. Idempotent.
  void Cancel();
  bool is_cancelled() const { return is_cancelled_; }
  /// Of a signal that nothing waits for.
  void Reset();
  /// Waits; false, at once, if it is or becomes cancelled.
  bool WaitUntil(Deadline deadline) const;
  /// Readable while cancelled.
  int file() const { return file_; }

 private:
  explicit CancelSignal(int file) : file_(file) {}

  const int file_;  // an eventfd
  std::atomic<bool> is_cancelled_{false};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_CANCEL_SIGNAL_H_
