// runs/JOB: where a run leaves its spec, metrics and model.
#ifndef DELTAPIPE_COORDINATOR_CLI_RUN_FOLDER_H_
#define DELTAPIPE_COORDINATOR_CLI_RUN_FOLDER_H_

#include <string>

#include "absl/status/statusor.h"

namespace deltapipe {

/// Makes a folder of its own for `name` below `runs` (made if need be): NAME,
/// else NAME-2, NAME-3, ... Returns its absolute path. INVALID_ARGUMENT: the
/// path is not UTF-8. The errors of MakeDirectories: PERMISSION_DENIED,
/// RESOURCE_EXHAUSTED, ...
absl::StatusOr<std::string> CreateRunFolder(const std::string& runs,
                                            const std::string& name);

/// The folder `runs`/`name` of an earlier run, absolute. NOT_FOUND if there is
/// none.
absl::StatusOr<std::string> FindResumableFolder(const std::string& runs,
                                                const std::string& name);

/// Removes the files that a process which was killed while it wrote the model
/// has left in `folder`. Nobody may be writing it.
void RemoveModelTemporaries(const std::string& folder);

/// The folder that `job` names: a path to one, or a name below `runs`.
/// NOT_FOUND if there is none with a model; says which runs there are.
absl::StatusOr<std::string> FindRunFolder(const std::string& runs,
                                          const std::string& job);

/// `path` from the root.
std::string AbsolutePath(const std::string& path);
/// `path` from the current folder, if it is below it.
std::string ShortPath(const std::string& path);
/// The last part of a path.
std::string BaseName(const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_RUN_FOLDER_H_
