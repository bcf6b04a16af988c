// A plan as people read it: who computes what, what travels where, how long a
// step should take and what it waits for. For `deltapipe plan`.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_RENDER_PLAN_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_RENDER_PLAN_H_

#include <string>
#include <vector>

#include "coordinator/schedule/saved_memory.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// Aligned tables of at most 100 columns (for values of usual size); lines end
/// with '\n'. `spec` is the job that the plan was built for.
std::string RenderPlan(const v1::Plan& plan, const v1::JobSpec& spec);

/// What saved activations take on each stage by class, before and after they
/// are packed: of one micro-batch, and in all of those in flight. Empty where
/// `saved` is.
std::string RenderSavedMemory(const std::vector<SavedMemory>& saved,
                              const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_RENDER_PLAN_H_
