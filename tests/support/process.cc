#include "tests/support/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "base/deadline.h"

namespace deltapipe {
namespace {

constexpr char kMarkVariable[] = "DELTAPIPE_TEST_MARK";

int PollMillis(Deadline deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      deadline.remaining());
  return static_cast<int>(
      std::min<int64_t>(left.count() + 1, int64_t{3600} * 1000));
}

/// Waits for the end of `pid`, which need not be a child.
bool WaitForEnd(pid_t pid, Deadline deadline) {
  const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (handle < 0) return true;
  pollfd event{handle, POLLIN, 0};
  int ready = 0;
  do {
    ready = poll(&event, 1, PollMillis(deadline));
  } while (ready < 0 && errno == EINTR);
  close(handle);
  return ready > 0;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

bool IsZombie(const std::string& folder) {
  const std::string stat = ReadAll(folder + "/stat");
  const size_t name_end = stat.rfind(')');
  return name_end == std::string::npos || name_end + 2 >= stat.size() ||
         stat[name_end + 2] == 'Z' || stat[name_end + 2] == 'X';
}

constexpr int kTerminalColumns = 100;

/// Where a child writes and its parent reads; -1 is no file.
struct Streams {
  int child_output = -1;
  int child_errors = -1;
  int parent_output = -1;
  int parent_errors = -1;  // of a terminal: both are in parent_output

  void CloseChildEnds() {
    CloseOne(&child_errors);
    CloseOne(&child_output);
  }
  void CloseParentEnds() {
    CloseOne(&parent_errors);
    CloseOne(&parent_output);
  }

 private:
  static void CloseOne(int* file) {
    if (*file >= 0) close(*file);
    *file = -1;
  }
};

bool OpenPipe(int* parent_end, int* child_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    perror("pipe2");
    return false;
  }
  *parent_end = ends[0];
  *child_end = ends[1];
  return true;
}

bool OpenTerminal(Streams* streams) {
  char path[128];
  winsize size = {};
  size.ws_col = kTerminalColumns;
  size.ws_row = 25;
  streams->parent_output = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  const int terminal = streams->parent_output;
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0 ||
      ptsname_r(terminal, path, sizeof path) != 0 ||
      ioctl(terminal, TIOCSWINSZ, &size) != 0) {
    perror("posix_openpt");
    return false;
  }
  streams->child_output = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  streams->child_errors = fcntl(streams->child_output, F_DUPFD_CLOEXEC, 0);
  if (streams->child_errors < 0) perror(path);
  return streams->child_errors >= 0;
}

bool OpenStreams(const ProcessOptions& options, Streams* streams) {
  if (options.has_terminal) return OpenTerminal(streams);
  return OpenPipe(&streams->parent_output, &streams->child_output) &&
         OpenPipe(&streams->parent_errors, &streams->child_errors);
}

[[noreturn]] void BecomeProgram(const std::vector<std::string>& words,
                                const ProcessOptions& options,
                                const Streams& streams) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(options.has_terminal ? streams.child_output : nothing, STDIN_FILENO);
  dup2(streams.child_output, STDOUT_FILENO);
  dup2(streams.child_errors, STDERR_FILENO);
  if (options.has_terminal) setenv("TERM", "xterm", 1);
  std::vector<char*> arguments;
  for (const std::string& word : words) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  if (setenv(kMarkVariable, options.mark.c_str(), 1) == 0 &&
      (options.folder.empty() || chdir(options.folder.c_str()) == 0)) {
    execv(arguments[0], arguments.data());
  }
  dprintf(STDERR_FILENO, "cannot start %s: %s\n", arguments[0],
          strerror(errno));
  _exit(127);
}

}  // namespace

std::unique_ptr<Process> Process::Start(const std::vector<std::string>& words,
                                        const ProcessOptions& options) {
  Streams streams;
  if (!OpenStreams(options, &streams)) {
    streams.CloseChildEnds();
    streams.CloseParentEnds();
    return nullptr;
  }
  const pid_t pid = fork();
  if (pid == 0) BecomeProgram(words, options, streams);
  streams.CloseChildEnds();
  if (pid < 0) {
    perror("fork");
    streams.CloseParentEnds();
    return nullptr;
  }
  setpgid(pid, pid);  // also here: whichever of both comes first
  return std::unique_ptr<Process>(
      new Process(pid, streams.parent_output, streams.parent_errors));
}

Process::Process(pid_t pid, int output_pipe, int errors_pipe)
    : pid_(pid), stop_event_(eventfd(0, EFD_CLOEXEC)) {
  reader_ = Thread("output", [this, output_pipe, errors_pipe] {
    Read(output_pipe, errors_pipe);
  });
}

Process::~Process() {
  if (!WaitForExit(std::chrono::milliseconds(0)).has_value()) {
    SignalGroup(SIGKILL);
    WaitForExit(std::chrono::hours(1));
  }
  const uint64_t one = 1;
  if (write(stop_event_, &one, sizeof one) != sizeof one) perror("eventfd");
  reader_.Join();
  close(stop_event_);
}

void Process::Read(int output_pipe, int errors_pipe) {
  pollfd events[3] = {{output_pipe, POLLIN, 0},
                      {errors_pipe, POLLIN, 0},
                      {stop_event_, POLLIN, 0}};
  std::vector<char> block(65536);
  while (events[0].fd >= 0 || events[1].fd >= 0) {
    if (poll(events, 3, -1) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    bool has_read = false;
    for (int i = 0; i < 2; ++i) {
      if (events[i].fd < 0 || events[i].revents == 0) continue;
      const ssize_t size = read(events[i].fd, block.data(), block.size());
      if (size <= 0) {
        events[i].fd = -1;
        continue;
      }
      has_read = true;
      MutexLock lock(&mutex_);
      (i == 0 ? output_ : errors_)
          .append(block.data(), static_cast<size_t>(size));
      changed_.NotifyAll();
    }
    // What was written before the stop has been read.
    if (!has_read && events[2].revents != 0) break;
  }
  close(output_pipe);
  if (errors_pipe >= 0) close(errors_pipe);
  MutexLock lock(&mutex_);
  has_ended_ = true;
  changed_.NotifyAll();
}

void Process::Signal(int signal) {
  if (!exit_code_.has_value()) kill(pid_, signal);
}

void Process::SignalGroup(int signal) { kill(-pid_, signal); }

std::optional<int> Process::WaitForExit(std::chrono::milliseconds wait) {
  if (exit_code_.has_value()) return exit_code_;
  if (!WaitForEnd(pid_, Deadline::After(wait))) return std::nullopt;
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0) {
    if (errno != EINTR) return std::nullopt;
  }
  exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status)  //
                                   : WEXITSTATUS(status);
  return exit_code_;
}

bool Process::WaitForOutput(
    const std::function<bool(const std::string&)>& found,
    std::chrono::milliseconds wait) {
  const Deadline deadline = Deadline::After(wait);
  size_t seen = 0;
  while (true) {
    std::string text;
    bool has_ended = false;
    {
      MutexLock lock(&mutex_);
      const bool is_new = changed_.WaitUntil(lock, deadline, [&] {
        return has_ended_ || output_.size() + errors_.size() > seen;
      });
      if (!is_new) return false;
      text = output_ + errors_;
      has_ended = has_ended_;
    }
    if (found(text)) return true;
    if (has_ended) return false;
    seen = text.size();
  }
}

std::string Process::output() const {
  MutexLock lock(&mutex_);
  return output_;
}

std::string Process::errors() const {
  MutexLock lock(&mutex_);
  return errors_;
}

std::vector<RunningProcess> MarkedProcesses(const std::string& mark) {
  // The variable begins the block or follows a NUL, and a NUL ends it.
  const std::string entry =
      std::string(kMarkVariable) + "=" + mark + std::string(1, '\0');
  std::vector<RunningProcess> found;
  DIR* folder = opendir("/proc");
  if (folder == nullptr) return found;
  while (const dirent* item = readdir(folder)) {
    const pid_t pid = static_cast<pid_t>(atoi(item->d_name));
    if (pid <= 0 || pid == getpid()) continue;
    const std::string of = std::string("/proc/") + item->d_name;
    if (ReadAll(of + "/environ").find(entry) == std::string::npos) continue;
    if (IsZombie(of)) continue;
    std::string command = ReadAll(of + "/cmdline");
    std::replace(command.begin(), command.end(), '\0', ' ');
    found.push_back({pid, command});
  }
  closedir(folder);
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.pid < b.pid; });
  return found;
}

std::vector<RunningProcess> MarkedProcesses(const std::string& mark,
                                            const std::string& part) {
  std::vector<RunningProcess> found = MarkedProcesses(mark);
  found.erase(std::remove_if(found.begin(), found.end(),
                             [&](const RunningProcess& process) {
                               return process.command.find(part) ==
                                      std::string::npos;
                             }),
              found.end());
  return found;
}

std::vector<RunningProcess> WaitForNoneMarked(const std::string& mark,
                                              std::chrono::milliseconds wait) {
  const Deadline deadline = Deadline::After(wait);
  std::vector<RunningProcess> left = MarkedProcesses(mark);
  while (!left.empty() && WaitForEnd(left.front().pid, deadline)) {
    left = MarkedProcesses(mark);
  }
  return left;
}

}  // namespace deltapipe
