// AtomicFile: a file that appears under its name whole or not at all. Bytes go
// to a temporary file beside it, which Finish syncs and renames.
//
// What WriteFileAtomically is made of, for files that do not fit in memory.
// Thread-compatible, blocking. After an error all calls return it; whatever was
// not finished is removed with the object.
//
//   DP_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
//   DP_RETURN_IF_ERROR(file.Append(piece));
//   DP_RETURN_IF_ERROR(file.Finish());
#ifndef DELTAPIPE_BASE_ATOMIC_FILE_H_
#define DELTAPIPE_BASE_ATOMIC_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/descriptor.h"

namespace deltapipe {

class AtomicFile {
 public:
  /// The errors of base/file.h. A link at `path` stays one: what it leads to
  /// will be replaced. INVALID_ARGUMENT for a device, pipe or socket.
  static absl::StatusOr<AtomicFile> Create(const std::string& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() { Discard(); }

  /// RESOURCE_EXHAUSTED for a full disk.
  absl::Status Append(absl::Span<const uint8_t> bytes);
  /// Puts the file under its name, durably.
  absl::Status Finish();

 private:
  AtomicFile(const std::string& given_path, const std::string& path);
  /// Removes the temporary file and remembers the error of `error_number`.
  absl::Status Fail(int error_number);
  void Discard();

  std::string given_path_;
  std::string path_;  // links followed
  std::string temporary_;
  Descriptor file_;
  absl::Status status_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_ATOMIC_FILE_H_
