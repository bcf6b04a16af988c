// MakeTorchStageWith: a stage of LibTorch's layers (stage.h), where more is to
// be said than MakeTorchStage takes.
#ifndef DELTAPIPE_WORKER_STAGE_TORCH_STAGE_H_
#define DELTAPIPE_WORKER_STAGE_TORCH_STAGE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "worker/saved_activations/packed_tensor.h"
#include "worker/stage/stage.h"

namespace deltapipe {

struct TorchStageOptions {
  /// As MakeTorchStage has it.
  std::string device = "cpu";
  /// Not null: saved activations are packed by it and by the rules of a GPU,
  /// wherever layers compute. For tests, on hosts without one.
  std::function<absl::StatusOr<std::unique_ptr<TensorPacker>>()> make_packer;
};

/// As MakeTorchStage.
absl::StatusOr<std::unique_ptr<Stage>> MakeTorchStageWith(
    const v1::JobSpec& spec, int first_layer, int end_layer,
    const TorchStageOptions& options);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_TORCH_STAGE_H_
