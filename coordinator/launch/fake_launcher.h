// FakeLauncher: a Launcher that starts nothing. A test ends its workers by
// hand.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_FAKE_LAUNCHER_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_FAKE_LAUNCHER_H_

#include <set>
#include <utility>

#include "base/mutex.h"
#include "coordinator/launch/launcher.h"

namespace deltapipe {

class FakeLauncher : public Launcher {
 public:
  explicit FakeLauncher(WorkerExitCallback on_exit)
      : on_exit_(std::move(on_exit)) {}

  absl::Status Launch(int count) override {
    MutexLock lock(&mutex_);
    if (is_stopped_) {
      return absl::FailedPreconditionError("the launcher was stopped");
    }
    for (int i = 0; i < count; ++i) running_.insert(next_++);
    return absl::OkStatus();
  }
  void Stop() override {
    MutexLock lock(&mutex_);
    is_stopped_ = true;
    running_.clear();
  }
  int NumRunning() override {
    MutexLock lock(&mutex_);
    return static_cast<int>(running_.size());
  }

  /// The worker ends; nothing happens if it has ended already.
  void EndWorker(int index, const ChildExit& exit) {
    {
      MutexLock lock(&mutex_);
      if (running_.erase(index) == 0) return;
    }
    on_exit_(WorkerExit{index, 0, exit, ""});
  }

 private:
  const WorkerExitCallback on_exit_;
  Mutex mutex_;
  std::set<int> running_ DP_GUARDED_BY(mutex_);
  int next_ DP_GUARDED_BY(mutex_) = 0;
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_FAKE_LAUNCHER_H_
