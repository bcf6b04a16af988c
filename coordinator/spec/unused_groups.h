// Which parameter groups of a spec count for no parameter of its model: a
// mistake that is found before anything is started.
#ifndef DELTAPIPE_COORDINATOR_SPEC_UNUSED_GROUPS_H_
#define DELTAPIPE_COORDINATOR_SPEC_UNUSED_GROUPS_H_

#include <map>
#include <string>

#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// By index in train.optimizer.groups, what is wrong: that a group matches no
/// parameter, with those that there are, or none that an earlier group leaves.
/// Empty for models whose parameters the plan decides on (synthetic, if it has
/// any): their workers check them as the job starts.
std::map<int, std::string> UnusedGroups(const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_UNUSED_GROUPS_H_
