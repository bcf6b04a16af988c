// The checkpoints that a job which is submitted to go on finds where it looks
// for them, as far as the coordinator can tell from its own records: it opens
// no file of a job.
#ifndef DELTAPIPE_COORDINATOR_RPC_FORMER_CHECKPOINTS_H_
#define DELTAPIPE_COORDINATOR_RPC_FORMER_CHECKPOINTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/spec/carried_state.h"
#include "coordinator/store/job_store.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// The last checkpoint of each job of the store that wrote to the place where
/// workers of `spec` and `run_folder` read: the spec's checkpoint.folder, else
/// "checkpoints" in the run folder, which of a job that named none is a folder
/// with its id. By step, the furthest first. Places are compared as they are
/// spelled: of links, and of hosts whose folders differ, this knows nothing.
/// The errors of the store.
absl::StatusOr<std::vector<FormerCheckpoint>> FormerCheckpoints(
    JobStore* store, const v1::JobSpec& spec, const std::string& run_folder);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_FORMER_CHECKPOINTS_H_
