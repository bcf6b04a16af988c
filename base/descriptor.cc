#include "base/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace deltapipe {
namespace {

// The kernel moves at most 2 GiB in a call.
constexpr size_t kMaxPiece = size_t{1} << 30;

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    Close();
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

Descriptor Descriptor::Open(const std::string& path, int flags, mode_t mode) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return Descriptor(fd);
}

Descriptor Descriptor::OpenAt(const Descriptor& folder, const std::string& name,
                              int flags, mode_t mode) {
  int fd;
  do {
    fd = ::openat(folder.get(), name.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return Descriptor(fd);
}

bool Descriptor::Close() {
  const int fd = std::exchange(fd_, -1);
  return fd < 0 || ::close(fd) == 0;
}

bool Descriptor::WriteAll(absl::Span<const uint8_t> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count =
        ::write(fd_, bytes.data(), std::min(bytes.size(), kMaxPiece));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

int64_t Descriptor::ReadAt(int64_t offset, absl::Span<uint8_t> bytes) const {
  int64_t total = 0;
  while (!bytes.empty()) {
    const ssize_t count = ::pread(
        fd_, bytes.data(), std::min(bytes.size(), kMaxPiece), offset + total);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    if (count == 0) break;
    total += count;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return total;
}

std::string ParentFolder(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace deltapipe
