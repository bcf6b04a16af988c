#include "base/temporary_folder.h"

#include <errno.h>
#include <stdlib.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace deltapipe {

absl::StatusOr<TemporaryFolder> TemporaryFolder::Create(
    absl::string_view purpose) {
  const char* const parent = getenv("TMPDIR");
  std::string path =
      absl::StrCat(parent != nullptr && parent[0] != '\0' ? parent : "/tmp",
                   "/deltapipe-", purpose, "-XXXXXX");
  if (mkdtemp(path.data()) == nullptr) {
    return FileError("make a folder like", path, errno);
  }
  return TemporaryFolder(std::move(path));
}

TemporaryFolder::TemporaryFolder(std::string path) : path_(std::move(path)) {}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept
    : path_(std::exchange(other.path_, std::string())) {}

TemporaryFolder::~TemporaryFolder() {
  if (!path_.empty()) Remove();
}

std::string TemporaryFolder::File(absl::string_view name) const {
  return absl::StrCat(path_, "/", name);
}

void TemporaryFolder::Remove() const {
  std::error_code error;  // What stays behind harms nobody.
  // Again, for files that processes which still run make meanwhile.
  for (int i = 0; i < 3 && std::filesystem::exists(path_, error); ++i) {
    std::filesystem::remove_all(path_, error);
  }
}

}  // namespace deltapipe
