#include "coordinator/launch/find_worker_binary.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

bool IsProgram(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         access(path.c_str(), X_OK) == 0;
}

}  // namespace

absl::StatusOr<std::string> FindWorkerBinary() {
  const char* const named = getenv("DELTAPIPE_WORKER");
  if (named != nullptr && named[0] != '\0') {
    if (IsProgram(named)) return std::string(named);
    return absl::NotFoundError(
        absl::StrCat("DELTAPIPE_WORKER names ", named,
                     ", which is no executable program: correct or unset it"));
  }
  char self[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", self, sizeof(self));
  std::string beside = "deltapipe-worker";
  if (size > 0 && size < static_cast<ssize_t>(sizeof(self))) {
    const std::string path(self, static_cast<size_t>(size));
    beside = absl::StrCat(path.substr(0, path.rfind('/') + 1), beside);
  }
  if (IsProgram(beside)) return beside;
  return absl::NotFoundError(absl::StrCat(
      "there is no worker program at ", beside,
      ": build it with scripts/build, or name it in DELTAPIPE_WORKER"));
}

}  // namespace deltapipe
