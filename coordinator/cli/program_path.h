// The programs that stand beside this one: deltapipe-worker, deltapipe-lab.
#ifndef DELTAPIPE_COORDINATOR_CLI_PROGRAM_PATH_H_
#define DELTAPIPE_COORDINATOR_CLI_PROGRAM_PATH_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deltapipe {

/// The folder of the running program, links resolved.
std::string ProgramFolder();

/// Becomes the program at `path` with `arguments`; returns only on failure:
/// NOT_FOUND or PERMISSION_DENIED, with the remedy.
absl::Status BecomeProgram(const std::string& path,
                           const std::vector<std::string>& arguments);

/// Runs the program at `path` and returns what it wrote to stdout; its stderr
/// is this program's. The errors of BecomeProgram, INVALID_ARGUMENT if
/// it ended with exit code 2, or INTERNAL if it failed otherwise.
absl::StatusOr<std::string> CaptureProgram(
    const std::string& path, const std::vector<std::string>& arguments);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_PROGRAM_PATH_H_
