// The profiler that this machine's command line uses.
#ifndef DELTAPIPE_COORDINATOR_CLI_MAKE_PROFILER_H_
#define DELTAPIPE_COORDINATOR_CLI_MAKE_PROFILER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "coordinator/launch/worker_profiler.h"

namespace deltapipe {

/// Runs the worker program beside this one and keeps what it measured in
/// $XDG_CACHE_HOME/deltapipe/profiles (~/.cache/...; in memory only where
/// neither is known). NOT_FOUND if there is no worker program.
absl::StatusOr<std::unique_ptr<WorkerProfiler>> MakeProfiler();

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_MAKE_PROFILER_H_
