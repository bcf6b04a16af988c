// A plan and its job as the simulator sees them.
//
//   DP_ASSIGN_OR_RETURN(PipelineModel model, ModelOfPlan(plan, spec));
//   DP_ASSIGN_OR_RETURN(Simulation simulation,
//                       Simulate(NominalProgramsOf(plan), model));
//   double samples_per_second = spec.train().batch() / simulation.step_seconds;
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_PIPELINE_MODEL_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_PIPELINE_MODEL_H_

#include "absl/status/statusor.h"
#include "coordinator/schedule/simulate.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// What the samples of a step are to the boundaries' delta state.
enum class Visit { kFirst, kLater };

/// Takes costs, bytes and codecs from `plan` (its instructions do not matter),
/// links and optimizer from `spec`. Gradients travel as they do when the job
/// ends. INVALID_ARGUMENT for a unit or codec that cannot be read.
absl::StatusOr<PipelineModel> ModelOfPlan(const v1::Plan& plan,
                                          const v1::JobSpec& spec,
                                          Visit visit = Visit::kLater);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_PIPELINE_MODEL_H_
