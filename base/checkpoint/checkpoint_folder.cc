#include "base/checkpoint/checkpoint_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace deltapipe {

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string LastName(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1);
}

absl::Status LinkError(const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot use ", path,
                   ": it is a link or no folder, expected a checkpoint's "
                   "folder itself"));
}

absl::StatusOr<Descriptor> OpenFolder(const std::string& path) {
  Descriptor folder = Descriptor::Open(WithoutSlashes(path),
                                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (folder.is_open()) return folder;
  if (errno == ENOTDIR || errno == ELOOP) return LinkError(path);
  return FileError("open", path, errno);
}

absl::StatusOr<Descriptor> OpenFile(const Descriptor& folder,
                                    const std::string& folder_path,
                                    const std::string& name,
                                    struct stat* info) {
  const std::string path = absl::StrCat(folder_path, "/", name);
  // A pipe must not block.
  Descriptor file =
      Descriptor::OpenAt(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  const bool is_link = !file.is_open() && errno == ELOOP;
  if (!file.is_open() && !is_link) return FileError("read", path, errno);
  if (!is_link && ::fstat(file.get(), info) != 0) {
    return FileError("read", path, errno);
  }
  if (is_link || !S_ISREG(info->st_mode)) {
    return absl::DataLossError(
        absl::StrCat("cannot read ", path,
                     ": it is a link, folder or device, expected a file"));
  }
  return file;
}

absl::StatusOr<std::string> ReadManifestText(const Descriptor& folder,
                                             const std::string& folder_path) {
  struct stat info;
  DP_ASSIGN_OR_RETURN(const Descriptor file,
                      OpenFile(folder, folder_path, kManifestName, &info));
  const std::string path = absl::StrCat(folder_path, "/", kManifestName);
  if (info.st_size > kMaxManifestBytes) {
    return absl::DataLossError(
        absl::StrCat(path, " is no valid manifest: it has ", info.st_size,
                     " bytes, expected at most ", kMaxManifestBytes));
  }
  std::string text(static_cast<size_t>(info.st_size), '\0');
  const int64_t count =
      file.ReadAt(0, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
  if (count < 0) return FileError("read", path, errno);
  text.resize(static_cast<size_t>(count));
  return text;
}

absl::StatusOr<CheckpointManifest> ReadManifest(const Descriptor& folder,
                                                const std::string& path) {
  DP_ASSIGN_OR_RETURN(const std::string text, ReadManifestText(folder, path));
  const std::string origin = absl::StrCat(path, "/", kManifestName);
  DP_ASSIGN_OR_RETURN(CheckpointManifest manifest, ParseManifest(text, origin));
  const std::string name =
      CheckpointFolderName(manifest.step, manifest.generation);
  if (name != LastName(path)) {
    return absl::DataLossError(absl::StrCat(
        origin, " is no valid manifest here: it is that of ", name));
  }
  return manifest;
}

absl::StatusOr<std::vector<std::string>> NamesIn(const Descriptor& folder,
                                                 const std::string& path) {
  Descriptor again = Descriptor::OpenAt(folder, ".", O_RDONLY | O_DIRECTORY);
  if (!again.is_open()) return FileError("list", path, errno);
  std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(again.get()),
                                              &::closedir);
  if (entries == nullptr) return FileError("list", path, errno);
  again.Release();
  std::vector<std::string> names;
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(entries.get());
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0 && errno != ENOENT) return FileError("list", path, errno);
  return names;
}

}  // namespace deltapipe
