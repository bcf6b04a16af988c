// ConfinePaths: holds the paths of an assignment to what whoever started this
// worker has opened to jobs. Called by the worker before it does anything else
// for an assignment; nothing is opened, made or changed on the disk.
//
//   WorkerRoots roots;
//   roots.reads = PathRoots::Beneath({"/data"}, "--data-root");
//   roots.writes = PathRoots::Beneath({"/var/lib/deltapipe"}, "--write-root");
//   DP_RETURN_IF_ERROR(ConfinePaths(roots, &assignment));
#ifndef DELTAPIPE_WORKER_CONTROL_ASSIGNMENT_PATHS_H_
#define DELTAPIPE_WORKER_CONTROL_ASSIGNMENT_PATHS_H_

#include "absl/status/status.h"
#include "base/path_roots.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

/// What jobs may name. By default, anything.
struct WorkerRoots {
  /// Of data.path; also of the files in it, if it is a folder of images.
  PathRoots reads;
  /// Of the run folder and the folder of the checkpoints, from which a job also
  /// goes on, and in which its delta state lies.
  PathRoots writes;
};

/// Replaces each path of `assignment` by where it leads, beneath its roots; an
/// empty folder of checkpoints by the one in the run folder. Without roots
/// nothing is changed. PERMISSION_DENIED as from PathRoots::Resolve; then
/// `assignment` may be changed in part.
absl::Status ConfinePaths(const WorkerRoots& roots, v1::Assignment* assignment);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CONTROL_ASSIGNMENT_PATHS_H_
