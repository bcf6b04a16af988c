#include "compression/delta/record_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPage = 4096;
/// As far as one allocation goes: enough to be rare, little enough to be
/// wasted.
constexpr int64_t kChunkBytes = int64_t{16} << 20;

int64_t RoundUp(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

absl::Status ErrorOf(int code, const std::string& what) {
  const std::string message =
      absl::StrCat(what, " failed: ", std::system_category().message(code));
  if (code == ENOSPC || code == EDQUOT || code == ENOMEM || code == EFBIG) {
    return absl::ResourceExhaustedError(absl::StrCat(
        message, ": make room there, or lower compression.state_memory"));
  }
  if (code == EACCES || code == EPERM || code == EROFS) {
    return absl::PermissionDeniedError(message);
  }
  return absl::UnavailableError(message);
}

/// A file without a name; where the file system has no such thing, one whose
/// name is taken away at once.
int OpenNameless(const std::string& folder) {
  const int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) {
    return fd;
  }
  std::string name = folder + "/.records-XXXXXX";
  const int named = mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) unlink(name.c_str());
  return named;
}

}  // namespace

/// A record, and its place in the file.
struct RecordFile::Place : public Record {
  explicit Place(std::shared_ptr<RecordFile> from) : file(std::move(from)) {}
  ~Place() { file->GiveBack(values.data()); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  const std::shared_ptr<RecordFile> file;
};

absl::StatusOr<std::shared_ptr<RecordFile>> RecordFile::Create(
    const std::string& folder, int64_t record_bytes) {
  if (record_bytes < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("records file: expected records of 1 byte or more, got ",
                     record_bytes));
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return ErrorOf(error.value(), absl::StrCat("make the folder ", folder));
  }
  const int fd = OpenNameless(folder);
  if (fd < 0) {
    return ErrorOf(errno, absl::StrCat("make a file of records in ", folder));
  }
  return std::shared_ptr<RecordFile>(new RecordFile(fd, folder, record_bytes));
}

RecordFile::RecordFile(int fd, std::string folder, int64_t record_bytes)
    : fd_(fd),
      folder_(std::move(folder)),
      record_bytes_(record_bytes),
      stride_(RoundUp(record_bytes, kAlignment)),
      chunk_bytes_(RoundUp(
          std::max(kChunkBytes / stride_, int64_t{1}) * stride_, kPage)) {}

RecordFile::~RecordFile() {
  for (uint8_t* chunk : chunks_) {
    munmap(chunk, static_cast<size_t>(chunk_bytes_));
  }
  close(fd_);
}

absl::Status RecordFile::Grow() {
  const int64_t begin = static_cast<int64_t>(chunks_.size()) * chunk_bytes_;
  const int code = posix_fallocate(fd_, begin, chunk_bytes_);
  if (code != 0) {
    return ErrorOf(code, absl::StrCat("keep more records in ", folder_));
  }
  void* mapped = mmap(nullptr, static_cast<size_t>(chunk_bytes_),
                      PROT_READ | PROT_WRITE, MAP_SHARED, fd_, begin);
  if (mapped == MAP_FAILED) {
    return ErrorOf(errno, absl::StrCat("map the records in ", folder_));
  }
  chunks_.push_back(static_cast<uint8_t*>(mapped));
  // The first place is taken first.
  for (int64_t i = chunk_bytes_ / stride_; i-- > 0;) {
    free_.push_back(chunks_.back() + i * stride_);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Record>> RecordFile::New(uint32_t version) {
  uint8_t* data = nullptr;
  {
    MutexLock lock(&mutex_);
    if (free_.empty()) DP_RETURN_IF_ERROR(Grow());
    data = free_.back();
    free_.pop_back();
  }
  auto record = std::make_shared<Place>(shared_from_this());
  record->version = version;
  record->values =
      Buffer::Borrow(absl::MakeSpan(data, static_cast<size_t>(record_bytes_)));
  return std::shared_ptr<Record>(std::move(record));
}

void RecordFile::GiveBack(uint8_t* place) {
  MutexLock lock(&mutex_);
  free_.push_back(place);
}

void RecordFile::Prefetch(const Record& record) const {
  const auto begin = reinterpret_cast<uintptr_t>(record.values.data());
  const uintptr_t page = begin / kPage * kPage;
  // Advice: what goes wrong costs time only.
  madvise(reinterpret_cast<void*>(page),
          begin - page + static_cast<size_t>(record.values.size()),
          MADV_WILLNEED);
}

int64_t RecordFile::bytes() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(chunks_.size()) * chunk_bytes_;
}

}  // namespace deltapipe
