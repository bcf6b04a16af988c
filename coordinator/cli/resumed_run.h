// What `run --resume` finds out about the checkpoints of an earlier run before
// it starts anything.
#ifndef DELTAPIPE_COORDINATOR_CLI_RESUMED_RUN_H_
#define DELTAPIPE_COORDINATOR_CLI_RESUMED_RUN_H_

#include <string>
#include <vector>

#include "coordinator/spec/job_spec.h"

namespace deltapipe {

/// Layers are cut as those of the newest checkpoint of the run in `folder`,
/// unless the spec says how: measured anew they might be cut otherwise, and
/// stages fit no other cut.
void KeepCut(const std::string& folder, v1::JobSpec* spec);

/// What keeps the job from going on with the newest checkpoint that its workers
/// would take. Empty where there is none, or none that can be read: workers
/// tell of those.
std::vector<SpecViolation> CheckResumable(const std::string& folder,
                                          const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_RESUMED_RUN_H_
