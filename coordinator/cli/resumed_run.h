// What `run --resume` finds out about the checkpoints of an earlier run before
// it starts anything, and `submit --here --resume` about those of a job.
#ifndef DELTAPIPE_COORDINATOR_CLI_RESUMED_RUN_H_
#define DELTAPIPE_COORDINATOR_CLI_RESUMED_RUN_H_

#include <string>
#include <vector>

#include "coordinator/spec/carried_state.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {

/// The checkpoints, newest first, in the spec's checkpoint.folder, or else in
/// the run folder `folder`; none where it cannot be read: workers tell of that.
std::vector<FormerCheckpoint> CheckpointsOfRun(const std::string& folder,
                                               const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_RESUMED_RUN_H_
