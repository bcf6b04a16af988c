// FolderLock: makes changes of a folder's files one after another, also those
// of other processes. Held for one read, change and write.
#ifndef DELTAPIPE_COORDINATOR_SECURITY_FOLDER_LOCK_H_
#define DELTAPIPE_COORDINATOR_SECURITY_FOLDER_LOCK_H_

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "base/file.h"

namespace deltapipe {

class FolderLock {
 public:
  /// Waits while another holds it, which takes milliseconds.
  static absl::StatusOr<FolderLock> Take(const std::string& folder) {
    const std::string path = folder + "/lock";
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return FileError("lock", path, errno);
    FolderLock lock(fd);
    while (flock(fd, LOCK_EX) != 0) {
      if (errno != EINTR) return FileError("lock", path, errno);
    }
    return lock;
  }
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SECURITY_FOLDER_LOCK_H_
