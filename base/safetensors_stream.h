// Safetensors files larger than memory: written and read piece by piece.
//
// The writer takes names, types and shapes first, then the tensors' bytes in
// the order of its entries; what it writes equals what SafetensorsWriter does
// for the same tensors. Size and digest (XXH3-64) are known when it finishes.
// The reader holds the header only and reads tensors from the file on demand.
// Neither trusts its file; errors are those of base/safetensors.h.
//
//   DP_ASSIGN_OR_RETURN(SafetensorsStreamWriter writer,
//                       SafetensorsStreamWriter::Create(path, tensors, {}));
//   for (const SafetensorsEntry& entry : writer.entries()) {
//     DP_RETURN_IF_ERROR(writer.Append(entry.name, BytesOf(entry.name)));
//   }
//   DP_ASSIGN_OR_RETURN(const WrittenSafetensors written, writer.Finish());
//
// Both are thread-compatible; the reader's const functions may be called by
// several threads at a time.
#ifndef DELTAPIPE_BASE_SAFETENSORS_STREAM_H_
#define DELTAPIPE_BASE_SAFETENSORS_STREAM_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/descriptor.h"
#include "base/safetensors_header.h"
#include "base/tensor_view.h"

namespace deltapipe {

struct SafetensorsDeclaration {
  std::string name;
  DType dtype = DType::kFloat32;
  Shape shape;
};

struct WrittenSafetensors {
  int64_t bytes = 0;  // of the file
  uint64_t digest = 0;
};

class SafetensorsStreamWriter {
 public:
  /// Begins the file, under another name until Finish. INVALID_ARGUMENT if two
  /// tensors share a name, a name is not UTF-8 or a shape is negative or too
  /// large; else the errors of base/file.h.
  static absl::StatusOr<SafetensorsStreamWriter> Create(
      const std::string& path,
      const std::vector<SafetensorsDeclaration>& tensors,
      const std::map<std::string, std::string>& metadata);

  /// In the order in which their bytes are due: wide types first, else as
  /// declared. Those without bytes need no Append.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

  /// The next bytes of tensor `name`, which begins where the one before ends.
  /// FAILED_PRECONDITION, naming the tensor that is due, if it is not `name` or
  /// has fewer bytes left; RESOURCE_EXHAUSTED for a full disk. After an error
  /// every call fails.
  absl::Status Append(const std::string& name, absl::Span<const uint8_t> bytes);
  template <typename T>
  absl::Status Append(const std::string& name, absl::Span<const T> values) {
    return Append(name, {reinterpret_cast<const uint8_t*>(values.data()),
                         values.size() * sizeof(T)});
  }
  /// Syncs the file and renames it to its path. FAILED_PRECONDITION if bytes
  /// are missing.
  absl::StatusOr<WrittenSafetensors> Finish();

 private:
  SafetensorsStreamWriter(const std::string& path, AtomicFile file);
  void SkipEmpty();
  absl::Status Write(absl::Span<const uint8_t> bytes);
  absl::Status Flush();
  absl::Status Fail(absl::Status status);

  std::string path_;
  std::vector<SafetensorsEntry> entries_;
  size_t due_ = 0;              // position in entries_
  int64_t num_appended_ = 0;    // bytes of all tensors
  std::vector<uint8_t> piece_;  // not yet in the file
  AtomicFile file_;
  std::unique_ptr<ChecksumStream> checksum_;
  int64_t num_bytes_ = 0;
  absl::Status status_;
};

class SafetensorsReader {
 public:
  /// Reads the header. NOT_FOUND if there is no such file; INVALID_ARGUMENT,
  /// naming path and tensor, if it is not that of valid safetensors.
  static absl::StatusOr<SafetensorsReader> Open(const std::string& path);

  /// In the order of their bytes.
  const std::vector<SafetensorsEntry>& entries() const {
    return header_.entries;
  }
  const std::map<std::string, std::string>& metadata() const {
    return header_.metadata;
  }
  /// Of the file.
  int64_t num_bytes() const { return num_bytes_; }

  /// Lives as long as this object. NOT_FOUND if there is no such tensor.
  absl::StatusOr<const SafetensorsEntry*> Find(const std::string& name) const;
  /// Fills `bytes`, which has the tensor's size, or INVALID_ARGUMENT.
  /// DATA_LOSS if the file has become shorter.
  absl::Status ReadTensor(const std::string& name,
                          absl::Span<uint8_t> bytes) const;
  /// The same for a part of the tensor that begins at its byte `offset`.
  absl::Status ReadPart(const SafetensorsEntry& entry, int64_t offset,
                        absl::Span<uint8_t> bytes) const;
  /// Reads the whole file. DATA_LOSS if it has not this size and digest.
  absl::Status Verify(const WrittenSafetensors& expected) const;

 private:
  SafetensorsReader() = default;

  std::string path_;
  Descriptor file_;
  int64_t num_bytes_ = 0;
  SafetensorsHeader header_;
  std::map<std::string, size_t> index_;  // name to position in entries
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_SAFETENSORS_STREAM_H_
