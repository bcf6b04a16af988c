// Whole files: read, replaced in one step, and the folders they live in.
//
// Called by whoever keeps something on disk; thread-safe, blocking. Never
// leaves a half-written file under the name that was asked for. Every error
// names what failed, the path and a remedy; its code follows the cause:
// NOT_FOUND, PERMISSION_DENIED (also read-only file systems),
// RESOURCE_EXHAUSTED (full disk, quota, size limit, open files),
// FAILED_PRECONDITION (a file where a folder is expected, or the reverse),
// UNAVAILABLE (I/O error), UNKNOWN.
//
//   DP_RETURN_IF_ERROR(MakeDirectories("runs/job-7"));
//   DP_RETURN_IF_ERROR(WriteFileAtomically("runs/job-7/spec.yaml", text));
#ifndef DELTAPIPE_BASE_FILE_H_
#define DELTAPIPE_BASE_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace deltapipe {

/// The content of the regular file `path`. RESOURCE_EXHAUSTED if it has more
/// than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path,
                                     int64_t max_bytes = INT64_MAX);
/// The same as bytes, at an address that fits every element type.
absl::StatusOr<std::vector<uint8_t>> ReadFileBytes(
    const std::string& path, int64_t max_bytes = INT64_MAX);

/// Writes the concatenation of `pieces` beside `path`, syncs it to the disk and
/// renames it over `path`: after a crash or an error there is the former file
/// or the whole of this one.
absl::Status WriteFileAtomically(
    const std::string& path,
    absl::Span<const absl::Span<const uint8_t>> pieces);
absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view text);

/// Makes the folder `path` and those above it; OK if it is there.
absl::Status MakeDirectories(const std::string& path);

/// The error for errno value `error_number` after `action`, such as "write":
/// "cannot write runs/7/model.safetensors: No space left on device: ...".
absl::Status FileError(absl::string_view action, absl::string_view path,
                       int error_number);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_FILE_H_
