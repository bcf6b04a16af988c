// What manifest.h says of reading and writing folders on the disk;
// removal.cc removes them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/checkpoint/checkpoint_folder.h"
#include "base/checkpoint/manifest.h"
#include "base/checksum.h"
#include "base/descriptor.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;
/// Renames `from` to the manifest's name. EEXIST if there is one.
bool RenameToManifest(const Descriptor& folder, const std::string& from) {
  if (::renameat2(folder.get(), from.c_str(), folder.get(), kManifestName,
                  RENAME_NOREPLACE) == 0) {
    return true;
  }
  if (errno != EINVAL && errno != ENOSYS) return false;
  // A file system that cannot refuse to replace.
  struct stat info;
  if (::fstatat(folder.get(), kManifestName, &info, AT_SYMLINK_NOFOLLOW) == 0) {
    errno = EEXIST;
    return false;
  }
  return ::renameat(folder.get(), from.c_str(), folder.get(), kManifestName) ==
         0;
}

/// INVALID_ARGUMENT unless `text` is the manifest of what `folder_path` names.
absl::Status CheckText(const std::string& text,
                       const std::string& folder_path) {
  const auto manifest = ParseManifest(text, "the text to store");
  if (!manifest.ok()) {
    return absl::InvalidArgumentError(manifest.status().message());
  }
  const std::string name =
      CheckpointFolderName(manifest->step, manifest->generation);
  if (name == LastName(folder_path)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the text to store is that of ", name));
}

}  // namespace

absl::StatusOr<CheckpointScan> ScanCheckpoints(const std::string& folder_path) {
  CheckpointScan scan;
  const Descriptor folder =
      Descriptor::Open(folder_path, O_RDONLY | O_DIRECTORY);
  if (!folder.is_open()) {
    if (errno == ENOENT) return scan;
    return FileError("list", folder_path, errno);
  }
  DP_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                      NamesIn(folder, folder_path));
  for (const std::string& name : names) {
    int64_t step;
    uint64_t generation;
    if (!ParseCheckpointFolderName(name, &step, &generation).ok()) continue;
    const std::string path =
        absl::StrCat(WithoutSlashes(folder_path), "/", name);
    const auto manifest = LoadManifest(path);
    if (manifest.ok()) {
      scan.checkpoints.push_back({path, *manifest});
    } else if (!absl::IsNotFound(manifest.status())) {
      scan.refused.push_back(std::string(manifest.status().message()));
    }
  }
  std::sort(scan.checkpoints.begin(), scan.checkpoints.end(),
            [](const FoundCheckpoint& a, const FoundCheckpoint& b) {
              return std::make_pair(a.manifest.step, a.manifest.generation) >
                     std::make_pair(b.manifest.step, b.manifest.generation);
            });
  std::sort(scan.refused.begin(), scan.refused.end());
  return scan;
}

absl::StatusOr<CheckpointManifest> LoadManifest(const std::string& given_path) {
  const std::string path = WithoutSlashes(given_path);
  DP_ASSIGN_OR_RETURN(const Descriptor folder, OpenFolder(path));
  return ReadManifest(folder, path);
}

absl::StatusOr<ManifestFile> DigestFile(const std::string& folder_path,
                                        const std::string& name) {
  if (!CheckpointFileNameIsSafe(name)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", name,
        "' is no name of a checkpoint's file: use letters, digits, "
        "'.', '_' and '-'"));
  }
  DP_ASSIGN_OR_RETURN(const Descriptor folder, OpenFolder(folder_path));
  struct stat info;
  DP_ASSIGN_OR_RETURN(const Descriptor file,
                      OpenFile(folder, folder_path, name, &info));
  ManifestFile result;
  result.name = name;
  ChecksumStream checksum;
  std::vector<uint8_t> piece(kPieceBytes);
  while (true) {
    const int64_t count = file.ReadAt(result.bytes, absl::MakeSpan(piece));
    if (count < 0) {
      return FileError("read", absl::StrCat(folder_path, "/", name), errno);
    }
    if (count == 0) break;
    checksum.Update({piece.data(), static_cast<size_t>(count)});
    result.bytes += count;
  }
  result.digest = checksum.Digest();
  return result;
}

absl::Status VerifyCheckpointFile(const std::string& checkpoint_path,
                                  const ManifestFile& expected) {
  const std::string path = absl::StrCat(checkpoint_path, "/", expected.name);
  if (!CheckpointFileNameIsSafe(expected.name)) {
    return absl::DataLossError(
        absl::StrCat("'", path, "' is no name of a checkpoint's file"));
  }
  // The size is cheap and says most.
  struct stat info;
  if (::lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
      info.st_size != expected.bytes) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged: expected ", expected.bytes,
                     " bytes, got ", info.st_size, ": use another checkpoint"));
  }
  DP_ASSIGN_OR_RETURN(const ManifestFile actual,
                      DigestFile(checkpoint_path, expected.name));
  if (actual.bytes != expected.bytes || actual.digest != expected.digest) {
    return absl::DataLossError(absl::StrFormat(
        "%s is damaged: expected %d bytes of digest %016x, got %d of %016x: "
        "use another checkpoint",
        path, expected.bytes, expected.digest, actual.bytes, actual.digest));
  }
  return absl::OkStatus();
}

absl::Status StoreManifest(const std::string& checkpoint_path,
                           const std::string& text) {
  const std::string folder_path = WithoutSlashes(checkpoint_path);
  const std::string path = absl::StrCat(folder_path, "/", kManifestName);
  DP_RETURN_IF_ERROR(Annotate(CheckText(text, folder_path),
                              absl::StrCat("cannot write ", path)));
  DP_ASSIGN_OR_RETURN(const Descriptor folder, OpenFolder(folder_path));
  static std::atomic<uint64_t> num_written{0};
  const std::string temporary = absl::StrCat(kManifestName, kTemporaryMark,
                                             ::getpid(), "-", num_written++);
  Descriptor file = Descriptor::OpenAt(
      folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0666);
  if (!file.is_open()) return FileError("write", path, errno);
  const bool is_written =
      file.WriteAll(
          {reinterpret_cast<const uint8_t*>(text.data()), text.size()}) &&
      ::fsync(file.get()) == 0 && file.Close() &&
      RenameToManifest(folder, temporary);
  if (!is_written) {
    const int error_number = errno;
    ::unlinkat(folder.get(), temporary.c_str(), 0);
    if (error_number != EEXIST) return FileError("write", path, error_number);
    const auto stored = ReadManifestText(folder, folder_path);
    if (!stored.ok() || *stored != text) {
      return absl::FailedPreconditionError(absl::StrCat(
          "cannot write ", path,
          ": there is another one already: remove that checkpoint first"));
    }
  }
  if (::fsync(folder.get()) != 0 && errno == EIO) {
    return FileError("write", path, EIO);
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
