#include "coordinator/launch/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

/// What the child does between fork and exec: system calls only, since other
/// threads may have held any lock at the fork. Ends the child on error, after
/// writing errno to `report`.
[[noreturn]] void ExecChild(const ChildCommand& command, char** argv,
                            pid_t parent, int report) {
  const auto fail = [report] {
    const int error = errno;
    if (write(report, &error, sizeof(error)) < 0) _exit(126);
    _exit(127);
  };
  setpgid(0, 0);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  if (getppid() != parent) _exit(0);  // the parent died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  const int null_file = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_file < 0) fail();
  const int out = command.stdout_file < 0 ? null_file : command.stdout_file;
  const int err = command.stderr_file < 0 ? null_file : command.stderr_file;
  if (dup2(null_file, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) fail();
#ifdef SYS_close_range
  constexpr unsigned kCloseOnExec = 1u << 2;
  // Older kernels leave this to the files' own O_CLOEXEC.
  syscall(SYS_close_range, 3u, ~0u, kCloseOnExec);
#endif
  execv(argv[0], argv);
  fail();
  _exit(127);
}

absl::Status SpawnError(const std::string& program, int error) {
  const std::string text =
      absl::StrCat("cannot start ", program, ": ", strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case ENOEXEC:
      return absl::PermissionDeniedError(
          absl::StrCat(text, ": it must be an executable program"));
    default:
      return absl::ResourceExhaustedError(
          absl::StrCat(text, ": end other programs or raise their limits"));
  }
}

ChildExit ExitOf(int status) {
  ChildExit exit;
  if (WIFSIGNALED(status)) {
    exit.signal = WTERMSIG(status);
  } else {
    exit.code = WEXITSTATUS(status);
  }
  return exit;
}

}  // namespace

std::string ChildExit::ToString() const {
  if (signal != 0) {
    return absl::StrCat("killed by signal ", signal, " (", strsignal(signal),
                        ")");
  }
  return absl::StrCat("exit code ", code);
}

absl::StatusOr<ChildProcess> SpawnChild(const ChildCommand& command) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) {
    return SpawnError(command.argv[0], errno);
  }
  std::vector<char*> argv;
  for (const std::string& argument : command.argv) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) ExecChild(command, argv.data(), parent, report[1]);
  const int fork_error = errno;
  close(report[1]);
  if (pid < 0) {
    close(report[0]);
    return SpawnError(command.argv[0], fork_error);
  }
  setpgid(pid, pid);  // also here, so that Signal works at once
  // The pipe closes at exec; only a failed child writes to it.
  int error = 0;
  ssize_t size;
  do {
    size = read(report[0], &error, sizeof(error));
  } while (size < 0 && errno == EINTR);
  close(report[0]);
  ChildProcess child(pid, static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (size == sizeof(error)) {
    child.Wait();
    return SpawnError(command.argv[0], error);
  }
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::exchange(other.pidfd_, -1)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this == &other) return *this;
  Close();
  pid_ = std::exchange(other.pid_, 0);
  pidfd_ = std::exchange(other.pidfd_, -1);
  return *this;
}

ChildProcess::~ChildProcess() { Close(); }

void ChildProcess::Close() {
  if (pid_ != 0) {
    Signal(SIGKILL);
    Wait();
  }
  if (pidfd_ >= 0) close(pidfd_);
  pidfd_ = -1;
}

void ChildProcess::Signal(int signal) {
  if (pid_ == 0) return;
  // The group: a worker's own children go with it.
  if (kill(-pid_, signal) != 0) kill(pid_, signal);
}

std::optional<ChildExit> ChildProcess::TryWait() {
  if (pid_ == 0) return ChildExit();
  int status = 0;
  const pid_t reaped = waitpid(pid_, &status, WNOHANG);
  if (reaped == 0 || (reaped < 0 && errno == EINTR)) return std::nullopt;
  pid_ = 0;
  return reaped < 0 ? ChildExit() : ExitOf(status);
}

ChildExit ChildProcess::Wait() {
  if (pid_ == 0) return ChildExit();
  int status = 0;
  pid_t reaped;
  do {
    reaped = waitpid(pid_, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  pid_ = 0;
  return reaped < 0 ? ChildExit() : ExitOf(status);
}

}  // namespace deltapipe
