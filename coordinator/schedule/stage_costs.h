// What each stage of a job costs, before schedule and codecs are chosen.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_STAGE_COSTS_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_STAGE_COSTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/image_model.h"
#include "base/mixed_sizes.h"
#include "coordinator/schedule/saved_memory.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct StageCost {
  int first_layer = 0;
  int end_layer = 0;
  // Per micro-batch.
  double forward_seconds = 0;
  double backward_seconds = 0;
  /// Kept for the backward pass, as compression.saved_activations keeps it.
  int64_t saved_bytes = 0;
  /// The same by class and before; without classes if nothing is packed.
  SavedMemory saved;
  int64_t parameters = 0;
  /// Of them, those that other stages hold, too.
  int64_t tied_parameters = 0;
  /// Per sample, of the tensor that the stage hands to the next one.
  int64_t output_elements = 0;
  /// The rows and columns of it, as codecs see them; of images as they are.
  BoundaryShape output_shape;
  /// What training sends where data.sizes mixes sizes; else empty.
  std::vector<ShapeShare> mixed_shapes;
};

/// Cuts the profile's layers into parallel.stages stages, as parallel.partition
/// says: of even cost, of equally many layers, or of so many as given; a
/// synthetic model needs no profile and has one layer per stage. Layers take
/// `compute_slowdown` times as long as the profile says, synthetic ones do not.
/// Where data.sizes mixes sizes they take less on average, by the images' area;
/// what they save is that of images as they are, which is no less.
/// INVALID_ARGUMENT if there are fewer layers than stages, or other layers or
/// stages than given ones.
absl::StatusOr<std::vector<StageCost>> CutIntoStages(
    const v1::JobSpec& spec, const v1::StageProfile& profile,
    double compute_slowdown = 1);

/// How many stages hold what is tied; 0 where nothing is.
int NumTiedStages(const std::vector<StageCost>& stages);

/// Bytes of weights, gradients, optimizer state and synchronisation buffers of
/// a stage with `parameters` parameters and `num_replicas` replicas.
int64_t ParameterBytes(const v1::OptimizerSpec& optimizer, int64_t parameters,
                       int num_replicas);

/// Bytes of optimizer state per worker of a stage, weights and gradients not
/// counted.
struct OptimizerBytes {
  int64_t kept = 0;  // as the spec says
  int64_t replicated = 0;
  int64_t sharded = 0;  // 0: this kind's cannot be shared out
};
OptimizerBytes PredictOptimizerBytes(const v1::OptimizerSpec& optimizer,
                                     int64_t parameters, int num_replicas);

/// Bytes of the copies of weights and gradients that layers compute with where
/// that is not in fp32 (train.precision).
int64_t WorkingCopyBytes(const v1::TrainSpec& train, int64_t parameters);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_STAGE_COSTS_H_
