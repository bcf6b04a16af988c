// BuildPlan: from a job spec and measured layer costs to what every worker
// does.
//
// A pure function, deterministic. Cuts the layers into stages of even cost,
// resolves `auto` codecs and schedule, predicts bytes, memory and step time by
// simulation, and has the result checked (check_plan.h) before anyone runs it.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_BUILD_PLAN_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_BUILD_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/schedule/saved_memory.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct PlanInputs {
  v1::JobSpec spec;          // validated, defaults filled in
  v1::StageProfile profile;  // one entry per layer
  /// Samples of the training split; 0 when not known yet.
  int64_t train_samples = 0;
  /// Memory of the smallest worker; 0 when not known.
  int64_t worker_memory_bytes = 0;
  /// How much longer a layer takes than the profile says: the profile is of one
  /// worker alone on its machine, and here all workers share too few cores. At
  /// least 1. Synthetic stages sleep and are not slowed down.
  double compute_slowdown = 1;
};

struct PlannedJob {
  v1::Plan plan;
  /// Sentences for the user: what `auto` became, and why.
  std::vector<std::string> notes;
  /// A row for each stage; empty unless saved activations are packed.
  std::vector<SavedMemory> saved;
};

/// INVALID_ARGUMENT: the spec cannot be cut so. RESOURCE_EXHAUSTED: no schedule
/// fits the memory budget; names by how many bytes and what would help.
absl::StatusOr<PlannedJob> BuildPlan(const PlanInputs& inputs);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_BUILD_PLAN_H_
