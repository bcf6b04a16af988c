// TemporaryFolder: a folder of one's own below $TMPDIR (or /tmp) that goes away
// with the object, and with all that is in it.
//
//   DP_ASSIGN_OR_RETURN(const TemporaryFolder folder,
//                       TemporaryFolder::Create("profile"));
//   WriteFileAtomically(folder.File("spec.json"), text);
#ifndef DELTAPIPE_BASE_TEMPORARY_FOLDER_H_
#define DELTAPIPE_BASE_TEMPORARY_FOLDER_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

class TemporaryFolder {
 public:
  /// Nobody else may read it. `purpose` is part of its name, for people who
  /// find it after a crash. Errors of FileError.
  static absl::StatusOr<TemporaryFolder> Create(absl::string_view purpose);
  TemporaryFolder(TemporaryFolder&& other) noexcept;
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder();

  const std::string& path() const { return path_; }
  std::string File(absl::string_view name) const;
  /// Removes it now: for a process that ends without destructors.
  void Remove() const;

 private:
  explicit TemporaryFolder(std::string path);

  std::string path_;  // empty: moved from
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_TEMPORARY_FOLDER_H_
