// What each stage of a job costs, before schedule and codecs are chosen.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_STAGE_COSTS_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_STAGE_COSTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct StageCost {
  int first_layer = 0;
  int end_layer = 0;
  // Per micro-batch.
  double forward_seconds = 0;
  double backward_seconds = 0;
  int64_t saved_bytes = 0;
  int64_t parameters = 0;
  /// Per sample, of the tensor that the stage hands to the next one.
  int64_t output_elements = 0;
};

/// Cuts the profile's layers into parallel.stages stages of even cost; a
/// synthetic model needs no profile and has one layer per stage. Layers take
/// `compute_slowdown` times as long as the profile says, synthetic ones do not.
/// INVALID_ARGUMENT if there are fewer layers than stages.
absl::StatusOr<std::vector<StageCost>> CutIntoStages(
    const v1::JobSpec& spec, const v1::StageProfile& profile,
    double compute_slowdown = 1);

/// Bytes of weights, gradients, optimizer state and synchronisation buffers of
/// a stage with `parameters` parameters and `num_replicas` replicas.
int64_t ParameterBytes(const v1::OptimizerSpec& optimizer, int64_t parameters,
                       int num_replicas);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_STAGE_COSTS_H_
