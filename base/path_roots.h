// PathRoots: folders beneath which somebody else's paths must lie, such as
// those of a job that came over the network.
//
// Called by workers before they open anything of a job, and by coordinators
// before they look at its data. A path is followed as the disk would follow it:
// `..` and symbolic links count for where they lead, so a link that stays
// beneath a root is fine and one that leads out is not. What need not exist yet
// (a file to be written) is judged by the part of its path that does.
//
// It looks and returns; it opens nothing. Who opens the path that Resolve
// returned, which has no link left, follows none that was there when it was
// judged. Against somebody who changes folders beneath a root in the meantime
// it does nothing: jobs cannot make links.
//
//   PathRoots roots = PathRoots::Beneath({"/data"}, "--data-root");
//   DP_ASSIGN_OR_RETURN(path, roots.Resolve("data.path", path));
#ifndef DELTAPIPE_BASE_PATH_ROOTS_H_
#define DELTAPIPE_BASE_PATH_ROOTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deltapipe {

/// A value; thread-compatible.
class PathRoots {
 public:
  /// Any path is fine.
  PathRoots() = default;
  /// Only `folders`, of which there may be none, and what lies beneath them;
  /// relative ones are taken from the current folder, now. They are looked at
  /// when a path is judged, so that a volume may come late. `flag` is what sets
  /// them, for errors.
  static PathRoots Beneath(const std::vector<std::string>& folders,
                           const std::string& flag);

  bool is_restricted() const { return is_restricted_; }
  /// "any folder", "nothing", or the folders, for logs.
  std::string ToString() const;

  /// Where `path`, relative or not, leads: absolute, without links and `..`;
  /// or, where nothing is restricted, `path` itself. `name` says what it is,
  /// such as "data.path". PERMISSION_DENIED, naming the path, the roots and the
  /// remedy, if it leads elsewhere, if a link in it leads nowhere, or if it
  /// cannot be followed; the answer does not depend on what exists elsewhere.
  absl::StatusOr<std::string> Resolve(const std::string& name,
                                      const std::string& path) const;

 private:
  bool is_restricted_ = false;
  std::vector<std::string> folders_;  // absolute
  std::string flag_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_PATH_ROOTS_H_
