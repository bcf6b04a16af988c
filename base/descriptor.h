// Descriptor: a file descriptor that closes itself, and the calls on one that
// go on after a signal or a short count. What base/file.h and the readers and
// writers of large files are made of.
//
// Thread-compatible, blocking. Functions that return bool leave the cause in
// errno; base/file.h makes an error of it:
//
//   Descriptor file = Descriptor::Open(path, O_RDONLY);
//   if (!file.is_open()) return FileError("read", path, errno);
#ifndef DELTAPIPE_BASE_DESCRIPTOR_H_
#define DELTAPIPE_BASE_DESCRIPTOR_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>

#include "absl/types/span.h"

namespace deltapipe {

class Descriptor {
 public:
  /// Owns `fd`; a negative one is none.
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;

  /// open(2) and openat(2) with O_CLOEXEC.
  static Descriptor Open(const std::string& path, int flags, mode_t mode = 0);
  static Descriptor OpenAt(const Descriptor& folder, const std::string& name,
                           int flags, mode_t mode = 0);

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  /// False if closing found an error that writing had left.
  bool Close();
  /// Leaves closing to the caller.
  int Release() { return std::exchange(fd_, -1); }

  /// Writes all of `bytes` at the file's position.
  bool WriteAll(absl::Span<const uint8_t> bytes) const;
  /// Reads bytes.size() bytes from `offset`; fewer at the end of the file. -1
  /// on error.
  int64_t ReadAt(int64_t offset, absl::Span<uint8_t> bytes) const;

 private:
  int fd_;
};

/// The folder that `path` lies in.
std::string ParentFolder(const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_DESCRIPTOR_H_
