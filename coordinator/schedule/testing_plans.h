// Plans for tests: valid ones for any schedule and shape, one layer per stage.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_TESTING_PLANS_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_TESTING_PLANS_H_

#include <string>

#include "coordinator/schedule/schedule.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// Overwrites `plan`, whose messages are reused. `schedule` must parse.
inline void MakeTestingPlan(const std::string& schedule,
                            const PipelineShape& shape, v1::Plan* plan) {
  plan->Clear();
  plan->set_num_stages(shape.num_stages);
  plan->set_num_replicas(1);
  plan->set_num_microbatches(shape.num_microbatches);
  plan->set_microbatch_samples(1);
  plan->set_schedule(schedule);
  const Schedule parsed = ParseSchedule(schedule).value();
  for (int r = 0; r < shape.num_stages; ++r) {
    const Program program = ProgramOf(parsed, shape, r);
    v1::StagePlan* stage = plan->add_stages();
    stage->set_stage(r);
    stage->set_first_layer(r);
    stage->set_end_layer(r + 1);
    stage->set_max_in_flight(PeakInFlight(program));
    SetInstructions(program, stage);
  }
}

inline v1::Plan TestingPlan(const std::string& schedule,
                            const PipelineShape& shape) {
  v1::Plan plan;
  MakeTestingPlan(schedule, shape, &plan);
  return plan;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_TESTING_PLANS_H_
