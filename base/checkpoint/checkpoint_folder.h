// A checkpoint's folder on the disk: what the parts of
// //base/checkpoint:manifest have in common, used by them alone.
//
// Every file is opened from its folder's descriptor and no link is followed, so
// that what was looked at is what is read or removed. Thread-safe.
#ifndef DELTAPIPE_BASE_CHECKPOINT_CHECKPOINT_FOLDER_H_
#define DELTAPIPE_BASE_CHECKPOINT_CHECKPOINT_FOLDER_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/checkpoint/manifest.h"
#include "base/descriptor.h"

namespace deltapipe {

inline constexpr char kManifestName[] = "manifest.json";
inline constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;
/// What a file is called while it is written: "NAME.tmp-PID-N".
inline constexpr char kTemporaryMark[] = ".tmp-";

/// Whether a manifest may name `name`: letters, digits, '.', '_' and '-', not
/// beginning with '.' or '-', without "..", at most 200 bytes, and not the
/// manifest itself.
bool CheckpointFileNameIsSafe(absl::string_view name);

/// `path` without slashes at its end.
std::string WithoutSlashes(std::string path);
/// The last part of a path without slashes at its end.
std::string LastName(const std::string& path);

/// FAILED_PRECONDITION that `path` is a link or no folder.
absl::Status LinkError(const std::string& path);
/// NOT_FOUND; FAILED_PRECONDITION for a link or a file.
absl::StatusOr<Descriptor> OpenFolder(const std::string& path);
/// Opens a regular file. NOT_FOUND; DATA_LOSS if it is something else.
absl::StatusOr<Descriptor> OpenFile(const Descriptor& folder,
                                    const std::string& folder_path,
                                    const std::string& name, struct stat* info);
/// The names in a folder; those of one that vanishes meanwhile are none.
absl::StatusOr<std::vector<std::string>> NamesIn(const Descriptor& folder,
                                                 const std::string& path);

/// The bytes of the manifest. NOT_FOUND; DATA_LOSS if it is too long.
absl::StatusOr<std::string> ReadManifestText(const Descriptor& folder,
                                             const std::string& folder_path);
/// The manifest, which must be of what the folder's name says, or DATA_LOSS.
absl::StatusOr<CheckpointManifest> ReadManifest(const Descriptor& folder,
                                                const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_CHECKPOINT_CHECKPOINT_FOLDER_H_
