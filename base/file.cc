#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/atomic_file.h"
#include "base/descriptor.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

template <typename Bytes>
absl::StatusOr<Bytes> ReadWholeFile(const std::string& path,
                                    int64_t max_bytes) {
  const Descriptor file = Descriptor::Open(path, O_RDONLY);
  if (!file.is_open()) return FileError("read", path, errno);
  struct stat info;
  if (::fstat(file.get(), &info) != 0) return FileError("read", path, errno);
  if (S_ISDIR(info.st_mode)) return FileError("read", path, EISDIR);
  if (info.st_size > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot read ", path, ": it has ", info.st_size,
                     " bytes, expected at most ", max_bytes));
  }
  // The size is a hint: files of /proc have none, and files grow.
  Bytes content;
  content.resize(static_cast<size_t>(info.st_size));
  size_t size = 0;
  while (true) {
    if (size == content.size()) {
      char probe;
      const ssize_t more = ::read(file.get(), &probe, 1);
      if (more == 0) break;
      if (more < 0 && errno != EINTR) return FileError("read", path, errno);
      if (more < 0) continue;
      if (static_cast<int64_t>(size) + 1 > max_bytes) {
        return absl::ResourceExhaustedError(
            absl::StrCat("cannot read ", path, ": expected at most ", max_bytes,
                         " bytes, got more"));
      }
      content.resize(std::max<size_t>(4096, 2 * size));
      content[size++] = static_cast<typename Bytes::value_type>(probe);
      continue;
    }
    const ssize_t count =
        ::read(file.get(), &content[size],
               std::min<size_t>(content.size() - size, size_t{1} << 30));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("read", path, errno);
    if (count == 0) break;
    size += static_cast<size_t>(count);
  }
  content.resize(size);
  if (static_cast<int64_t>(size) > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot read ", path, ": it has ", size,
                     " bytes, expected at most ", max_bytes));
  }
  return content;
}

absl::StatusCode CodeOf(int error_number) {
  switch (error_number) {
    case ENOENT:
      return absl::StatusCode::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::StatusCode::kPermissionDenied;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return absl::StatusCode::kResourceExhausted;
    case ENOTDIR:
    case EISDIR:
    case ENOTEMPTY:
      return absl::StatusCode::kFailedPrecondition;
    case EEXIST:
      return absl::StatusCode::kAlreadyExists;
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL:
      return absl::StatusCode::kInvalidArgument;
    case EIO:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kUnknown;
  }
}

const char* RemedyFor(int error_number) {
  switch (error_number) {
    case ENOENT:
      return ": check the path and that its folder exists";
    case EACCES:
    case EPERM:
      return ": give this user access to it, or choose another path";
    case EROFS:
      return ": choose a path on a file system that is writable";
    case ENOSPC:
      return ": free some space on that disk, or choose a path on another";
    case EDQUOT:
      return ": free some space of this user's quota, or choose another path";
    case EFBIG:
      return ": raise the limit on file sizes (ulimit -f)";
    case EMFILE:
    case ENFILE:
      return ": raise the limit on open files (ulimit -n)";
    case ENOTDIR:
      return ": a part of the path is a file, not a folder; choose another "
             "path";
    case EISDIR:
      return ": the path names a folder, expected a file";
    case EIO:
      return ": check the disk";
    default:
      return "";
  }
}

}  // namespace

absl::Status FileError(absl::string_view action, absl::string_view path,
                       int error_number) {
  return absl::Status(
      CodeOf(error_number),
      absl::StrCat("cannot ", action, " ", path, ": ",
                   std::generic_category().message(error_number),
                   RemedyFor(error_number)));
}

absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes) {
  return ReadWholeFile<std::string>(path, max_bytes);
}

absl::StatusOr<std::vector<uint8_t>> ReadFileBytes(const std::string& path,
                                                   int64_t max_bytes) {
  return ReadWholeFile<std::vector<uint8_t>>(path, max_bytes);
}

absl::Status WriteFileAtomically(
    const std::string& path,
    absl::Span<const absl::Span<const uint8_t>> pieces) {
  DP_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  for (const absl::Span<const uint8_t> piece : pieces) {
    DP_RETURN_IF_ERROR(file.Append(piece));
  }
  return file.Finish();
}

absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view text) {
  const absl::Span<const uint8_t> piece(
      reinterpret_cast<const uint8_t*>(text.data()), text.size());
  return WriteFileAtomically(path, absl::MakeConstSpan(&piece, 1));
}

absl::Status MakeDirectories(const std::string& path) {
  if (path.empty()) return FileError("make folder", "''", ENOENT);
  for (size_t end = path.find('/', 1); true; end = path.find('/', end + 1)) {
    const std::string folder = path.substr(0, end);
    if (::mkdir(folder.c_str(), 0777) != 0) {
      const int error_number = errno;
      struct stat info;
      const bool is_there = ::stat(folder.c_str(), &info) == 0;
      if (is_there && !S_ISDIR(info.st_mode)) {
        return FileError("make folder", folder, ENOTDIR);
      }
      // Folders above may exist where making them is not allowed.
      if (!is_there) return FileError("make folder", folder, error_number);
    }
    if (end == std::string::npos) return absl::OkStatus();
  }
}

}  // namespace deltapipe
