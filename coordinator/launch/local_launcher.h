// LocalLauncher: workers as child processes on this machine.
//
// One thread starts, watches and reaps them; since children die with the thread
// that started them, kill -9 of this process leaves no orphan. What a worker
// writes to stderr and stdout goes to a file of its own.
//
//   DP_ASSIGN_OR_RETURN(auto launcher, LocalLauncher::Create(options));
//   DP_RETURN_IF_ERROR(launcher->Launch(4));
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_LOCAL_LAUNCHER_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_LOCAL_LAUNCHER_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/launcher.h"

namespace deltapipe {

struct LocalLauncherOptions {
  std::string worker_binary;        // see FindWorkerBinary
  std::string coordinator_address;  // "127.0.0.1:41233"
  std::string launch_token;
  /// Holds worker-1.log and so on, as the workers are called in jobs; made if
  /// it is not there.
  std::string log_folder;
  std::string listen = "127.0.0.1:0";
  std::vector<std::string> extra_arguments;
  WorkerExitCallback on_exit;  // may be null
  /// How long Stop lets workers end themselves; less than 2 s.
  std::chrono::milliseconds stop_patience{1200};
};

class LocalLauncher : public Launcher {
 public:
  /// PERMISSION_DENIED and the like: the log folder cannot be made.
  static absl::StatusOr<std::unique_ptr<LocalLauncher>> Create(
      LocalLauncherOptions options);
  ~LocalLauncher() override;

  absl::Status Launch(int count) override;
  void Stop() override;
  int NumRunning() override;

 private:
  struct Worker {
    int index;
    ChildProcess process;
    pid_t pid;
    std::string stderr_path;
  };

  LocalLauncher(LocalLauncherOptions options, int wake_file);
  void Run();
  void Wake();
  void WaitForNews();
  absl::Status StartWorkers(int count);
  absl::StatusOr<Worker> StartWorker(int index);
  void ReapWorkers();
  void EndWorkers();

  const LocalLauncherOptions options_;
  const int wake_file_;          // an eventfd
  std::vector<Worker> workers_;  // used by thread_ only
  int next_index_ = 0;           // used by thread_ only

  Mutex mutex_;
  CondVar changed_;
  int num_wanted_ DP_GUARDED_BY(mutex_) = 0;  // asked for by Launch
  std::optional<absl::Status> launched_ DP_GUARDED_BY(mutex_);  // its answer
  int num_running_ DP_GUARDED_BY(mutex_) = 0;
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
  bool has_ended_ DP_GUARDED_BY(mutex_) = false;  // the thread, after Stop
  Mutex launch_mutex_;  // held over Launch: one at a time; before mutex_
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_LOCAL_LAUNCHER_H_
