#include "base/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace deltapipe {

AtomicFile::AtomicFile(const std::string& given_path, const std::string& path)
    : given_path_(given_path), path_(path) {
  static std::atomic<uint64_t> num_written{0};
  temporary_ = absl::StrCat(path, ".tmp-", ::getpid(), "-", num_written++);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : given_path_(std::move(other.given_path_)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, "")),
      file_(std::move(other.file_)),
      status_(std::move(other.status_)) {}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::string& given_path) {
  std::string path = given_path;
  if (char* target = ::realpath(given_path.c_str(), nullptr)) {
    path = target;
    std::free(target);
  }
  struct stat info;
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    if (S_ISDIR(info.st_mode)) return FileError("write", given_path, EISDIR);
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", given_path,
                     ": it is a device, pipe or socket, expected a file"));
  }
  AtomicFile file(given_path, path);
  // A file of that name was left by a process that died; it is nobody's.
  file.file_ =
      Descriptor::Open(file.temporary_, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (!file.file_.is_open()) return file.Fail(errno);
  return file;
}

absl::Status AtomicFile::Append(absl::Span<const uint8_t> bytes) {
  if (!status_.ok()) return status_;
  return file_.WriteAll(bytes) ? absl::OkStatus() : Fail(errno);
}

absl::Status AtomicFile::Finish() {
  if (!status_.ok()) return status_;
  const bool is_written = ::fsync(file_.get()) == 0 && file_.Close() &&
                          ::rename(temporary_.c_str(), path_.c_str()) == 0;
  if (!is_written) return Fail(errno);
  temporary_.clear();
  // Makes the rename itself durable. Some file systems cannot sync a folder
  // (EINVAL); the file is whole either way.
  const Descriptor folder =
      Descriptor::Open(ParentFolder(path_), O_RDONLY | O_DIRECTORY);
  if (folder.is_open() && ::fsync(folder.get()) != 0 && errno == EIO) {
    return Fail(EIO);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Fail(int error_number) {
  status_ = FileError("write", given_path_, error_number);
  Discard();
  return status_;
}

void AtomicFile::Discard() {
  file_.Close();
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

}  // namespace deltapipe
