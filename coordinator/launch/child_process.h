// Starts a child process that never outlives its parent.
//
// The child dies with the THREAD that started it (PR_SET_PDEATHSIG), so start
// it from one that lives as long as the child should. It has its own process
// group, so that Ctrl-C in the terminal does not reach it, and inherits no open
// file but the three standard ones.
//
//   DP_ASSIGN_OR_RETURN(ChildProcess child, SpawnChild({{"/bin/true"}, -1,
//   -1}));
//   ...
//   DP_ASSIGN_OR_RETURN(ChildExit exit, child.Wait());
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_CHILD_PROCESS_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_CHILD_PROCESS_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deltapipe {

struct ChildCommand {
  /// The program's path, then its arguments.
  std::vector<std::string> argv;
  /// Borrowed; -1: /dev/null.
  int stdout_file = -1;
  int stderr_file = -1;
};

struct ChildExit {
  int code = 0;    // exit status, if it was not killed
  int signal = 0;  // that killed it; 0: none
  bool ok() const { return code == 0 && signal == 0; }
  /// "exit code 2", "killed by signal 9 (Killed)".
  std::string ToString() const;
};

/// Owns a child that runs or waits to be reaped. Kills and reaps it when
/// destroyed. Not thread-safe.
class ChildProcess {
 public:
  ChildProcess(pid_t pid, int pidfd) : pid_(pid), pidfd_(pidfd) {}
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  /// Readable once the child has ended; -1 on kernels without pidfd.
  int pidfd() const { return pidfd_; }
  /// To the child's process group. Nothing once it is reaped.
  void Signal(int signal);
  /// Reaps the child if it has ended.
  std::optional<ChildExit> TryWait();
  /// Blocks until the child ends.
  ChildExit Wait();

 private:
  void Close();
  pid_t pid_;  // 0 once reaped
  int pidfd_;
};

/// NOT_FOUND, PERMISSION_DENIED: the program cannot be run (names it).
/// RESOURCE_EXHAUSTED: no more processes or memory.
absl::StatusOr<ChildProcess> SpawnChild(const ChildCommand& command);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_CHILD_PROCESS_H_
