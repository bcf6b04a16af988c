// Removes checkpoints, as manifest.h says.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/checkpoint/checkpoint_folder.h"
#include "base/checkpoint/manifest.h"
#include "base/descriptor.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

/// "stage-3.safetensors" and "rank-3.safetensors".
bool IsShardName(absl::string_view name) {
  return (absl::ConsumePrefix(&name, "stage-") ||
          absl::ConsumePrefix(&name, "rank-")) &&
         absl::ConsumeSuffix(&name, ".safetensors") && !name.empty() &&
         name.find_first_not_of("0123456789") == absl::string_view::npos;
}

/// What this program wrote into a checkpoint's folder: what its manifest lists,
/// the shards of one that has none, and what was being written.
bool IsOurs(absl::string_view name, const std::set<std::string>& listed) {
  const absl::string_view stem = name.substr(0, name.find(kTemporaryMark));
  return IsShardName(stem) || listed.count(std::string(stem)) > 0 ||
         stem == kManifestName;
}

/// The manifest goes first, and durably: what a crash leaves is none.
absl::Status RemoveFrom(const Descriptor& parent, const std::string& path) {
  const std::string name = LastName(path);
  auto folder =
      Descriptor::OpenAt(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!folder.is_open()) {
    if (errno == ENOTDIR || errno == ELOOP) return LinkError(path);
    return FileError("remove", path, errno);
  }
  std::set<std::string> listed;
  if (const auto manifest = ReadManifest(folder, path); manifest.ok()) {
    for (const ManifestFile& file : manifest->files) listed.insert(file.name);
  }
  if (::unlinkat(folder.get(), kManifestName, 0) != 0 && errno != ENOENT) {
    return FileError("remove", absl::StrCat(path, "/", kManifestName), errno);
  }
  // Some file systems cannot sync a folder (EINVAL).
  if (::fsync(folder.get()) != 0 && errno == EIO) {
    return FileError("remove", path, EIO);
  }
  DP_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      NamesIn(folder, path));
  for (const std::string& entry : names) {
    struct stat info;
    if (!IsOurs(entry, listed) ||
        ::fstatat(folder.get(), entry.c_str(), &info, AT_SYMLINK_NOFOLLOW) !=
            0 ||
        !S_ISREG(info.st_mode)) {
      continue;
    }
    // Another process may have been faster.
    if (::unlinkat(folder.get(), entry.c_str(), 0) != 0 && errno != ENOENT) {
      return FileError("remove", absl::StrCat(path, "/", entry), errno);
    }
  }
  // A folder with files that are not ours stays, and is no checkpoint.
  if (::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) != 0 &&
      errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST) {
    return FileError("remove", path, errno);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RemoveCheckpoint(const std::string& given_path) {
  const std::string path = WithoutSlashes(given_path);
  int64_t step;
  uint64_t generation;
  DP_RETURN_IF_ERROR(
      Annotate(ParseCheckpointFolderName(LastName(path), &step, &generation),
               absl::StrCat("cannot remove ", path)));
  const Descriptor parent =
      Descriptor::Open(ParentFolder(path), O_RDONLY | O_DIRECTORY);
  if (!parent.is_open()) return FileError("remove", path, errno);
  return RemoveFrom(parent, path);
}

absl::Status RemoveOldCheckpoints(const std::string& folder_path,
                                  const std::vector<std::string>& kept) {
  using Age = std::pair<int64_t, uint64_t>;
  if (kept.empty()) return absl::OkStatus();
  Age newest = {-1, 0};
  for (const std::string& name : kept) {
    Age age;
    DP_RETURN_IF_ERROR(
        ParseCheckpointFolderName(name, &age.first, &age.second));
    newest = std::max(newest, age);
  }
  const std::string path = WithoutSlashes(folder_path);
  const Descriptor folder = Descriptor::Open(path, O_RDONLY | O_DIRECTORY);
  if (!folder.is_open()) {
    return errno == ENOENT ? absl::OkStatus() : FileError("list", path, errno);
  }
  DP_ASSIGN_OR_RETURN(std::vector<std::string> names, NamesIn(folder, path));
  const auto is_here = [&](const std::string& name) {
    const std::string kept_path = absl::StrCat(path, "/", name);
    const auto kept_folder = OpenFolder(kept_path);
    return kept_folder.ok() && ReadManifest(*kept_folder, kept_path).ok();
  };
  if (std::none_of(kept.begin(), kept.end(), is_here)) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot remove old checkpoints below ", path,
                     ": none of those to keep is a checkpoint there: the old "
                     "ones stay"));
  }
  // Oldest first: what an error leaves is the newest of them.
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    Age age;
    if (!ParseCheckpointFolderName(name, &age.first, &age.second).ok() ||
        age >= newest ||
        std::find(kept.begin(), kept.end(), name) != kept.end()) {
      continue;
    }
    const absl::Status status =
        RemoveFrom(folder, absl::StrCat(path, "/", name));
    // Another process was faster; a link is not ours.
    if (!status.ok() && !absl::IsNotFound(status) &&
        !absl::IsFailedPrecondition(status)) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
