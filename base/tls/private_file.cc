#include "base/tls/private_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr int64_t kMaxBytes = 1 << 20;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// errno, or 0.
int WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return fsync(fd) == 0 ? 0 : errno;
}

}  // namespace

absl::Status WritePrivateFile(const std::string& path, absl::string_view text) {
  std::string temporary = path + ".XXXXXX";
  const int fd = mkostemp(&temporary[0], O_CLOEXEC);  // mode 0600
  if (fd < 0) return FileError("write", path, errno);
  int error = WriteAll(fd, text);
  if (close(fd) != 0 && error == 0) error = errno;
  if (error == 0 && rename(temporary.c_str(), path.c_str()) != 0) error = errno;
  if (error != 0) {
    unlink(temporary.c_str());
    return FileError("write", path, error);
  }
  const int folder =
      open(FolderOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    // Some file systems cannot; the file itself is on the disk.
    fsync(folder);
    close(folder);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadPrivateFile(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return FileError("read", path, errno);
  // A Kubernetes secret belongs to root and is mounted for this group alone.
  const bool is_mounted_for_us = status.st_uid == 0 && geteuid() != 0 &&
                                 status.st_gid == getegid() &&
                                 (status.st_mode & 037) == 0;
  if ((status.st_mode & 077) != 0 && !is_mounted_for_us) {
    return absl::PermissionDeniedError(absl::StrCat(
        "cannot use ", path, ": it holds a secret, and others can read or ",
        "write it (mode ", absl::StrFormat("%03o", status.st_mode & 0777),
        ", expected 600): make a new secret, or `chmod 600` it if nobody saw "
        "it"));
  }
  return ReadFile(path, kMaxBytes);
}

absl::Status MakePrivateFolder(const std::string& path) {
  DP_RETURN_IF_ERROR(MakeDirectories(FolderOf(path)));
  if (mkdir(path.c_str(), 0700) == 0) return absl::OkStatus();
  if (errno != EEXIST) return FileError("make the folder", path, errno);
  return MakeDirectories(path);
}

}  // namespace deltapipe
