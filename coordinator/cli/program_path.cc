#include "coordinator/cli/program_path.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace deltapipe {

std::string ProgramFolder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0) return ".";
  const std::string whole(path, static_cast<size_t>(length));
  return whole.substr(0, whole.rfind('/'));
}

namespace {

std::vector<char*> ArgumentPointers(const std::string& path,
                                    const std::vector<std::string>& arguments) {
  std::vector<char*> pointers = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

absl::Status CannotRun(const std::string& path, int error_number) {
  if (error_number != ENOENT) return FileError("run", path, error_number);
  return absl::NotFoundError(
      absl::StrCat("there is no ", path, ": scripts/build makes it"));
}

}  // namespace

absl::Status BecomeProgram(const std::string& path,
                           const std::vector<std::string>& arguments) {
  std::vector<char*> pointers = ArgumentPointers(path, arguments);
  std::fflush(nullptr);
  execv(path.c_str(), pointers.data());
  return CannotRun(path, errno);
}

absl::StatusOr<std::string> CaptureProgram(
    const std::string& path, const std::vector<std::string>& arguments) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return FileError("open", "a pipe", errno);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::vector<char*> pointers = ArgumentPointers(path, arguments);
  pid_t child = 0;
  const int error = posix_spawn(&child, path.c_str(), &actions, nullptr,
                                pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  if (error == 0) {
    char piece[4096];
    ssize_t count;
    while ((count = read(ends[0], piece, sizeof(piece))) > 0 ||
           (count < 0 && errno == EINTR)) {
      if (count > 0) output.append(piece, static_cast<size_t>(count));
    }
  }
  close(ends[0]);
  if (error != 0) return CannotRun(path, error);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return output;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " refused what it was given"));
  }
  return absl::InternalError(absl::StrCat(
      path, WIFEXITED(status) ? " ended with exit code " : " died of signal ",
      WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
}

}  // namespace deltapipe
