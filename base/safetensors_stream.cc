#include "base/safetensors_stream.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr int64_t kMaxFileBytes = int64_t{1} << 60;

/// Whether all tensors together have a size that can be counted.
absl::Status CheckShapes(const std::vector<SafetensorsDeclaration>& tensors) {
  int64_t total = 0;
  for (const SafetensorsDeclaration& tensor : tensors) {
    int64_t bytes = DTypeBytes(tensor.dtype);
    bool is_bad = tensor.shape.size() > 8;
    for (const int64_t extent : tensor.shape) {
      is_bad |= extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes);
    }
    is_bad = is_bad || __builtin_add_overflow(total, bytes, &total) ||
             total > kMaxFileBytes;
    if (is_bad) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", tensor.name,
                       "': expected a shape of at most 8 extents "
                       "of 0 or more that fits a file, got ",
                       ShapeString(tensor.shape)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

SafetensorsStreamWriter::SafetensorsStreamWriter(const std::string& path,
                                                 AtomicFile file)
    : path_(path),
      file_(std::move(file)),
      checksum_(std::make_unique<ChecksumStream>()) {}

absl::StatusOr<SafetensorsStreamWriter> SafetensorsStreamWriter::Create(
    const std::string& path, const std::vector<SafetensorsDeclaration>& tensors,
    const std::map<std::string, std::string>& metadata) {
  const std::string context = absl::StrCat("cannot write ", path);
  DP_RETURN_IF_ERROR(Annotate(CheckShapes(tensors), context));
  std::vector<DType> dtypes;
  for (const SafetensorsDeclaration& tensor : tensors) {
    dtypes.push_back(tensor.dtype);
  }
  std::vector<SafetensorsEntry> entries;
  for (const size_t i : SafetensorsOrder(dtypes)) {
    entries.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape});
  }
  const auto header = FormatSafetensorsHeader(metadata, &entries);
  if (!header.ok()) return Annotate(header.status(), context);
  DP_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  SafetensorsStreamWriter writer(path, std::move(file));
  writer.entries_ = std::move(entries);
  writer.SkipEmpty();
  DP_RETURN_IF_ERROR(writer.Write(
      {reinterpret_cast<const uint8_t*>(header->data()), header->size()}));
  return writer;
}

absl::Status SafetensorsStreamWriter::Append(const std::string& name,
                                             absl::Span<const uint8_t> bytes) {
  if (!status_.ok()) return status_;
  if (bytes.empty()) return absl::OkStatus();
  if (due_ == entries_.size()) {
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path_, ": got bytes of tensor '", name,
                     "' after those of the last one")));
  }
  const SafetensorsEntry& entry = entries_[due_];
  const int64_t num_left = entry.end - num_appended_;
  if (entry.name != name || static_cast<int64_t>(bytes.size()) > num_left) {
    return Fail(absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path_, ": expected at most ", num_left,
                     " bytes of tensor '", entry.name, "', got ", bytes.size(),
                     " of '", name, "'")));
  }
  num_appended_ += static_cast<int64_t>(bytes.size());
  SkipEmpty();
  return Write(bytes);
}

absl::StatusOr<WrittenSafetensors> SafetensorsStreamWriter::Finish() {
  if (!status_.ok()) return status_;
  if (due_ < entries_.size()) {
    return Fail(absl::FailedPreconditionError(absl::StrCat(
        "cannot finish ", path_, ": expected ",
        entries_[due_].end - num_appended_, " more bytes of tensor '",
        entries_[due_].name, "' first")));
  }
  DP_RETURN_IF_ERROR(Flush());
  if (absl::Status status = file_.Finish(); !status.ok()) return Fail(status);
  status_ = absl::FailedPreconditionError(
      absl::StrCat("cannot write ", path_, ": it is finished"));
  return WrittenSafetensors{num_bytes_, checksum_->Digest()};
}

/// Goes to the tensor whose bytes are due.
void SafetensorsStreamWriter::SkipEmpty() {
  while (due_ < entries_.size() && entries_[due_].end == num_appended_) ++due_;
}

/// Small tensors are gathered, large ones not copied.
absl::Status SafetensorsStreamWriter::Write(absl::Span<const uint8_t> bytes) {
  checksum_->Update(bytes);
  num_bytes_ += static_cast<int64_t>(bytes.size());
  if (piece_.size() + bytes.size() > kPieceBytes) DP_RETURN_IF_ERROR(Flush());
  if (bytes.size() < kPieceBytes) {
    piece_.insert(piece_.end(), bytes.begin(), bytes.end());
    return absl::OkStatus();
  }
  const absl::Status status = file_.Append(bytes);
  return status.ok() ? status : Fail(status);
}

absl::Status SafetensorsStreamWriter::Flush() {
  const absl::Status status = file_.Append(piece_);
  piece_.clear();
  return status.ok() ? status : Fail(status);
}

absl::Status SafetensorsStreamWriter::Fail(absl::Status status) {
  status_ = status;
  return status;
}

absl::StatusOr<SafetensorsReader> SafetensorsReader::Open(
    const std::string& path) {
  SafetensorsReader reader;
  reader.path_ = path;
  // A pipe must not block.
  reader.file_ = Descriptor::Open(path, O_RDONLY | O_NONBLOCK);
  if (!reader.file_.is_open()) return FileError("read", path, errno);
  struct stat info;
  if (::fstat(reader.file_.get(), &info) != 0) {
    return FileError("read", path, errno);
  }
  if (S_ISDIR(info.st_mode)) return FileError("read", path, EISDIR);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read ", path,
                     ": it is a device, pipe or socket, expected a file"));
  }
  reader.num_bytes_ = info.st_size;
  const std::string context = absl::StrCat(path, " is not valid safetensors");
  const auto read = [&](int64_t offset, int64_t count) {
    std::string text(static_cast<size_t>(count), '\0');
    const int64_t got = reader.file_.ReadAt(
        offset, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
    text.resize(static_cast<size_t>(std::max<int64_t>(0, got)));
    return got < 0 ? absl::StatusOr<std::string>(FileError("read", path, errno))
                   : absl::StatusOr<std::string>(std::move(text));
  };
  DP_ASSIGN_OR_RETURN(const std::string prefix,
                      read(0, kSafetensorsLengthBytes));
  const auto length = SafetensorsHeaderLength(
      {reinterpret_cast<const uint8_t*>(prefix.data()), prefix.size()},
      reader.num_bytes_);
  if (!length.ok()) return Annotate(length.status(), context);
  DP_ASSIGN_OR_RETURN(const std::string text,
                      read(kSafetensorsLengthBytes, *length));
  auto header = ParseSafetensorsHeader(
      text, reader.num_bytes_ - kSafetensorsLengthBytes - *length);
  if (!header.ok()) return Annotate(header.status(), context);
  reader.header_ = *std::move(header);
  for (size_t i = 0; i < reader.header_.entries.size(); ++i) {
    reader.index_[reader.header_.entries[i].name] = i;
  }
  return reader;
}

absl::StatusOr<const SafetensorsEntry*> SafetensorsReader::Find(
    const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) {
    return absl::NotFoundError(
        absl::StrCat(path_, ": there is no tensor '", name, "'"));
  }
  return &header_.entries[found->second];
}

absl::Status SafetensorsReader::ReadTensor(const std::string& name,
                                           absl::Span<uint8_t> bytes) const {
  DP_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, Find(name));
  if (static_cast<int64_t>(bytes.size()) != entry->end - entry->begin) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": tensor '", name, "' has ", entry->end - entry->begin,
        " bytes (", SafetensorsTypeName(entry->dtype), " ",
        ShapeString(entry->shape), "), expected ", bytes.size()));
  }
  return ReadPart(*entry, 0, bytes);
}

absl::Status SafetensorsReader::ReadPart(const SafetensorsEntry& entry,
                                         int64_t offset,
                                         absl::Span<uint8_t> bytes) const {
  const int64_t size = entry.end - entry.begin;
  if (offset < 0 || offset > size ||
      static_cast<int64_t>(bytes.size()) > size - offset) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": tensor '", entry.name, "' has ", size,
                     " bytes, not ", bytes.size(), " from ", offset));
  }
  const int64_t count =
      file_.ReadAt(header_.data_offset + entry.begin + offset, bytes);
  if (count < 0) return FileError("read", path_, errno);
  if (count < static_cast<int64_t>(bytes.size())) {
    return absl::DataLossError(
        absl::StrCat("cannot read ", path_, ": it ends within tensor '",
                     entry.name, "': it was shortened after it was opened"));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsReader::Verify(
    const WrittenSafetensors& expected) const {
  WrittenSafetensors actual;
  ChecksumStream checksum;
  std::vector<uint8_t> piece(kPieceBytes);
  while (true) {
    const int64_t count = file_.ReadAt(actual.bytes, absl::MakeSpan(piece));
    if (count < 0) return FileError("read", path_, errno);
    if (count == 0) break;
    checksum.Update({piece.data(), static_cast<size_t>(count)});
    actual.bytes += count;
  }
  actual.digest = checksum.Digest();
  if (actual.bytes == expected.bytes && actual.digest == expected.digest) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrFormat(
      "%s is damaged: expected %d bytes of digest %016x, got %d of %016x",
      path_, expected.bytes, expected.digest, actual.bytes, actual.digest));
}

}  // namespace deltapipe
