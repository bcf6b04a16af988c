// Measures what the layers of a model cost on this machine, so that the
// coordinator can cut it into stages of even cost.
#ifndef DELTAPIPE_WORKER_STAGE_PROFILE_H_
#define DELTAPIPE_WORKER_STAGE_PROFILE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "worker/stage/stage.h"

namespace deltapipe {

/// Times forward and backward of each layer for one micro-batch: the median of
/// a few repeats after a warm-up. The embedding counts to the first layer, the
/// head to the last. Layers of equal shape are timed once. Where the spec packs
/// saved activations, sums up what one more forward pass saves by class; errors
/// are then those of the policy, too. What goes to host memory for a device is
/// class "in host memory", of no bytes before.
absl::StatusOr<v1::StageProfile> ProfileModel(const v1::JobSpec& spec,
                                              const std::string& device);

/// The same of stages of one layer that `make` makes.
using OneLayerMaker = std::function<absl::StatusOr<std::unique_ptr<Stage>>(
    const v1::JobSpec& spec, int layer)>;
absl::StatusOr<v1::StageProfile> ProfileLayers(const v1::JobSpec& spec,
                                               const std::string& device,
                                               const OneLayerMaker& make);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_PROFILE_H_
