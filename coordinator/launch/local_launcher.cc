#include "coordinator/launch/local_launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

/// How often ends are looked for on kernels without pidfd.
constexpr int kPollMillis = 50;

}  // namespace

absl::StatusOr<std::unique_ptr<LocalLauncher>> LocalLauncher::Create(
    LocalLauncherOptions options) {
  DP_RETURN_IF_ERROR(MakeDirectories(options.log_folder));
  const int wake_file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_file < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make an eventfd: ", strerror(errno)));
  }
  return std::unique_ptr<LocalLauncher>(
      new LocalLauncher(std::move(options), wake_file));
}

LocalLauncher::LocalLauncher(LocalLauncherOptions options, int wake_file)
    : options_(std::move(options)),
      wake_file_(wake_file),
      thread_("launcher", [this] { Run(); }) {}

LocalLauncher::~LocalLauncher() {
  Stop();
  thread_.Join();
  close(wake_file_);
}

absl::Status LocalLauncher::Launch(int count) {
  MutexLock one_at_a_time(&launch_mutex_);
  MutexLock lock(&mutex_);
  if (is_stopped_) {
    return absl::FailedPreconditionError("the launcher was stopped");
  }
  num_wanted_ = count;
  launched_.reset();
  Wake();
  changed_.Wait(lock, [this] { return launched_.has_value(); });
  return *launched_;
}

void LocalLauncher::Stop() {
  MutexLock lock(&mutex_);
  is_stopped_ = true;
  Wake();
  changed_.Wait(lock, [this] { return has_ended_; });
}

int LocalLauncher::NumRunning() {
  MutexLock lock(&mutex_);
  return num_running_;
}

void LocalLauncher::Wake() {
  // Fails only if the counter is full, and then the thread wakes anyway.
  eventfd_write(wake_file_, 1);
}

void LocalLauncher::Run() {
  for (;;) {
    int num_wanted = 0;
    bool is_stopped = false;
    {
      MutexLock lock(&mutex_);
      num_wanted = std::exchange(num_wanted_, 0);
      is_stopped = is_stopped_;
    }
    if (num_wanted > 0) {
      const absl::Status launched =
          is_stopped ? absl::FailedPreconditionError("the launcher was stopped")
                     : StartWorkers(num_wanted);
      MutexLock lock(&mutex_);
      launched_ = launched;
      num_running_ = static_cast<int>(workers_.size());
      changed_.NotifyAll();
    }
    if (is_stopped) {
      EndWorkers();
      return;
    }
    WaitForNews();
    ReapWorkers();
  }
}

void LocalLauncher::WaitForNews() {
  std::vector<pollfd> files = {{wake_file_, POLLIN, 0}};
  int timeout = -1;
  for (const Worker& worker : workers_) {
    if (worker.process.pidfd() >= 0) {
      files.push_back({worker.process.pidfd(), POLLIN, 0});
    } else {
      timeout = kPollMillis;
    }
  }
  poll(files.data(), files.size(), timeout);
  eventfd_t count;
  eventfd_read(wake_file_, &count);  // EAGAIN if nobody called
}

absl::Status LocalLauncher::StartWorkers(int count) {
  const size_t num_before = workers_.size();
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<Worker> worker = StartWorker(next_index_);
    if (!worker.ok()) {
      while (workers_.size() > num_before) workers_.pop_back();  // killed
      return worker.status();
    }
    ++next_index_;
    workers_.push_back(*std::move(worker));
  }
  return absl::OkStatus();
}

absl::StatusOr<LocalLauncher::Worker> LocalLauncher::StartWorker(int index) {
  // The roster gives the worker the name that it asks for: nobody else knows
  // the launch token.
  const std::string name = absl::StrCat("worker-", index + 1);
  const std::string path = absl::StrCat(options_.log_folder, "/", name, ".log");
  const int log = open(
      path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) return FileError("open", path, errno);
  ChildCommand command;
  command.argv = {options_.worker_binary,
                  "--coordinator",
                  options_.coordinator_address,
                  "--listen",
                  options_.listen,
                  "--name",
                  name};
  if (!options_.launch_token.empty()) {
    command.argv.push_back("--launch-token");
    command.argv.push_back(options_.launch_token);
  }
  for (const std::string& argument : options_.extra_arguments) {
    command.argv.push_back(argument);
  }
  command.stdout_file = log;
  command.stderr_file = log;
  absl::StatusOr<ChildProcess> child = SpawnChild(command);
  close(log);
  if (!child.ok()) return child.status();
  const pid_t pid = child->pid();
  return Worker{index, *std::move(child), pid, path};
}

void LocalLauncher::ReapWorkers() {
  std::vector<WorkerExit> exits;
  for (auto it = workers_.begin(); it != workers_.end();) {
    const std::optional<ChildExit> exit = it->process.TryWait();
    if (!exit.has_value()) {
      ++it;
      continue;
    }
    exits.push_back(WorkerExit{it->index, it->pid, *exit, it->stderr_path});
    it = workers_.erase(it);
  }
  if (exits.empty()) return;
  bool is_stopped = false;
  {
    MutexLock lock(&mutex_);
    num_running_ = static_cast<int>(workers_.size());
    is_stopped = is_stopped_;
    changed_.NotifyAll();
  }
  if (is_stopped || options_.on_exit == nullptr) return;
  for (const WorkerExit& exit : exits) options_.on_exit(exit);
}

void LocalLauncher::EndWorkers() {
  for (Worker& worker : workers_) worker.process.Signal(SIGTERM);
  const Deadline deadline = Deadline::After(options_.stop_patience);
  while (!workers_.empty() && !deadline.has_passed()) {
    std::vector<pollfd> files;
    for (const Worker& worker : workers_) {
      files.push_back({worker.process.pidfd(), POLLIN, 0});
    }
    poll(files.data(), files.size(), kPollMillis);
    ReapWorkers();
  }
  for (Worker& worker : workers_) worker.process.Signal(SIGKILL);
  workers_.clear();  // reaps them
  MutexLock lock(&mutex_);
  num_running_ = 0;
  has_ended_ = true;
  changed_.NotifyAll();
}

}  // namespace deltapipe
