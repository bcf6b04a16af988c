#include "base/path_roots.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace deltapipe {
namespace {

std::string Absolute(const std::string& path) {
  if (absl::StartsWith(path, "/")) return path;
  char here[PATH_MAX];
  // A current folder that was removed lies beneath no root.
  if (getcwd(here, sizeof(here)) == nullptr) return "/proc/self/cwd/" + path;
  return absl::StrCat(here, "/", path);
}

std::optional<std::string> RealPath(const std::string& path) {
  char real[PATH_MAX];
  if (realpath(path.c_str(), real) == nullptr) return std::nullopt;
  return std::string(real);
}

struct Followed {
  /// Absolute, without links; where `error` is not 0, as far as it came.
  std::string real = "/";
  int error = 0;
};

/// Follows `path`, absolute, as far as it exists; the rest is added as it is.
/// ENOENT if the rest goes up, EACCES for a folder that must not be looked at,
/// ELOOP for a link that leads nowhere.
Followed Follow(const std::string& path) {
  Followed followed;
  std::string& real = followed.real;
  if (path.size() >= PATH_MAX || absl::StrContains(path, '\0')) {
    followed.error = ENAMETOOLONG;
    return followed;
  }
  bool exists = true;
  for (const absl::string_view part :
       absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part == "..") {
      followed.error = exists ? 0 : ENOENT;
      if (!exists) return followed;
      // `real` has no links, so that its parent is the folder above it.
      real.resize(real.rfind('/'));
      if (real.empty()) real = "/";
      continue;
    }
    const std::string next = absl::StrCat(real == "/" ? "" : real, "/", part);
    struct stat facts;
    if (exists && lstat(next.c_str(), &facts) == 0) {
      const std::optional<std::string> whole = RealPath(next);
      followed.error = whole.has_value() ? 0 : ELOOP;
      if (!whole.has_value()) return followed;
      real = *whole;
      continue;
    }
    if (exists && errno != ENOENT && errno != ENOTDIR) {
      followed.error = errno;
      return followed;
    }
    exists = false;
    real = next;
  }
  return followed;
}

bool IsBeneath(const std::string& real, const std::string& root) {
  if (root == "/" || real == root) return true;
  return absl::StartsWith(real, root + "/");
}

}  // namespace

PathRoots PathRoots::Beneath(const std::vector<std::string>& folders,
                             const std::string& flag) {
  PathRoots roots;
  roots.is_restricted_ = true;
  for (const std::string& folder : folders) {
    roots.folders_.push_back(Absolute(folder));
  }
  roots.flag_ = flag;
  return roots;
}

std::string PathRoots::ToString() const {
  if (!is_restricted_) return "any folder";
  return folders_.empty() ? "nothing" : absl::StrJoin(folders_, ", ");
}

absl::StatusOr<std::string> PathRoots::Resolve(const std::string& name,
                                               const std::string& path) const {
  if (!is_restricted_) return path;
  const Followed followed = Follow(Absolute(path));
  const std::string what =
      absl::StrCat(name, " '", absl::Utf8SafeCEscape(path), "'");
  for (const std::string& folder : folders_) {
    const std::optional<std::string> root = RealPath(folder);
    if (!root.has_value() || !IsBeneath(followed.real, *root)) continue;
    if (followed.error == 0) return followed.real;
    if (followed.error == EACCES) {
      return absl::PermissionDeniedError(absl::StrCat(
          what, " cannot be followed beyond ", followed.real,
          ": the user of this program must not look into a folder there"));
    }
  }
  if (folders_.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat(what, " is refused: no folder was opened to jobs by ",
                     flag_, ": start this program with ", flag_, " DIR"));
  }
  return absl::PermissionDeniedError(absl::StrCat(
      what, " leads out of what ", flag_, " opens to jobs (", ToString(),
      "): name a path beneath it, or start this "
      "program with ",
      flag_, " DIR for another folder"));
}

}  // namespace deltapipe
