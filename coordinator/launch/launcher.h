// Launcher: starts workers and notices when they end.
//
// Implemented by LocalLauncher (child processes on this machine), by
// KubernetesLauncher (pods) and by FakeLauncher. Thread-safe. Workers are
// counted from 0 in the order of their start; the one with index 0 asks the
// roster to be called worker-1.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_LAUNCHER_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_LAUNCHER_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "coordinator/launch/child_process.h"

namespace deltapipe {

/// The end of a worker that Stop had not asked for.
struct WorkerExit {
  int index = 0;
  pid_t pid = 0;
  ChildExit exit;
  /// Where its last words are.
  std::string stderr_path;
  /// The last line of that, where it is not for the callback to read.
  std::string last_words{};
};

/// Called on the launcher's thread; must not call the launcher.
using WorkerExitCallback = std::function<void(const WorkerExit&)>;

class Launcher {
 public:
  virtual ~Launcher() = default;
  /// Starts `count` more workers. On error those of this call are ended again.
  /// FAILED_PRECONDITION after Stop.
  virtual absl::Status Launch(int count) = 0;
  /// Ends all workers, by force where they do not end themselves, within 2 s;
  /// pods are asked to end and get their grace.
  /// Their ends are not reported. Idempotent.
  virtual void Stop() = 0;
  virtual int NumRunning() = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_LAUNCHER_H_
