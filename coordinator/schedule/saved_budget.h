// What the text of compression.saved_activations says about memory.
//
// Pure functions, which look into lean(policy), too. A text that is no policy
// says nothing.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_BUDGET_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_BUDGET_H_

#include <cstdint>

#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// What auto(budget,slowdown,offload) says, of a stage; bytes INT64_MAX: the
/// policy is another one.
struct SavedBudget {
  int64_t bytes = INT64_MAX;
  double slowdown = 0;
  int64_t host_bytes = 0;
};
SavedBudget SavedBudgetOf(const v1::JobSpec& spec);

/// Layers whose forward recompute(every) does again together; 0: none is.
int RecomputedGroupOf(const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_BUDGET_H_
