#include "worker/control/assignment_paths.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

/// The files that a folder of images may hold, as base/idx_file.h looks for
/// them: the folder's owner may have linked them to anywhere.
absl::Status ConfineImages(const PathRoots& roots, const std::string& folder) {
  for (const char* split : {"train", "t10k"}) {
    for (const char* part : {"images-idx3", "labels-idx1"}) {
      for (const char* ending : {"", ".gz"}) {
        DP_RETURN_IF_ERROR(
            roots
                .Resolve("data.path", absl::StrCat(folder, "/", split, "-",
                                                   part, "-ubyte", ending))
                .status());
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ConfinePaths(const WorkerRoots& roots,
                          v1::Assignment* assignment) {
  v1::JobSpec& spec = *assignment->mutable_spec();
  if (roots.reads.is_restricted() && spec.model().kind() != "synthetic") {
    v1::DataSpec& data = *spec.mutable_data();
    DP_ASSIGN_OR_RETURN(const std::string path,
                        roots.reads.Resolve("data.path", data.path()));
    if (data.kind() == "fashion_mnist") {
      DP_RETURN_IF_ERROR(ConfineImages(roots.reads, path));
    }
    data.set_path(path);
  }
  if (!roots.writes.is_restricted()) return absl::OkStatus();
  DP_ASSIGN_OR_RETURN(
      const std::string run_folder,
      roots.writes.Resolve("the run folder", assignment->run_folder()));
  assignment->set_run_folder(run_folder);
  const bool is_default = assignment->checkpoint_folder().empty();
  DP_ASSIGN_OR_RETURN(
      const std::string checkpoint_folder,
      roots.writes.Resolve(
          is_default ? "the folder of checkpoints" : "checkpoint.folder",
          is_default ? absl::StrCat(run_folder, "/checkpoints")
                     : assignment->checkpoint_folder()));
  assignment->set_checkpoint_folder(checkpoint_folder);
  return absl::OkStatus();
}

}  // namespace deltapipe
