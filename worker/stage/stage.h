// Stage: a contiguous piece of a model that one worker computes.
//
// The engine calls it from one thread. LibTorch ends at this interface: tensors
// are spans of fp32 in host memory, parameters lie in one flat buffer, as
// parameters() says. Backward adds to a flat gradient buffer. Stages that
// compute in 16 bits (train.precision) do so on a copy of the weights of their
// own, which WeightsChanged renews.
//
//   stage->ZeroGradients();
//   for each micro-batch: Forward, later Backward, in the order of the plan
//   ... gradients() synchronised, weights() updated in place ...
//   stage->WeightsChanged();
#ifndef DELTAPIPE_WORKER_STAGE_STAGE_H_
#define DELTAPIPE_WORKER_STAGE_STAGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/image_model.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "worker/optim/parameter_layout.h"
#include "worker/saved_activations/saved_activations.h"

namespace deltapipe {

/// fp32 values and whoever keeps them alive.
struct TensorRef {
  absl::Span<const float> values;
  std::shared_ptr<const void> owner;
  /// Not null where somebody keeps the same values in another form anyway:
  /// fills them in again, from any thread, whenever it is called. Who needs
  /// them once more later may keep this in their place.
  std::function<absl::Status(absl::Span<float>)> read_again = nullptr;
};

struct StageInput {
  int microbatch = 0;
  int64_t step = 0;
  /// Of the pipeline, for errors.
  int stage = 0;
  /// How often the data set was gone through before.
  int64_t epoch = 0;
  int64_t num_samples = 0;
  /// Identities of the samples; synthetic stages derive their tensors from
  /// them.
  absl::Span<const uint64_t> sample_keys;
  /// First stage: num_samples x context bytes, or square images of a byte a
  /// pixel, all of one size.
  absl::Span<const uint8_t> tokens;
  /// Last stage: the byte that follows each of them, or the images' classes.
  absl::Span<const uint8_t> targets;
  /// Not the first stage: num_samples x input_elements().
  TensorRef activation;
  /// False for evaluation: nothing is kept for a Backward.
  bool needs_backward = true;
  /// The last stage back-propagates its mean loss times this.
  float loss_scale = 1.0f;
  /// A stage that computes in fp16 multiplies gradients by this for as long as
  /// they are inside: what it is given and what leaves it, gradients() and the
  /// gradient of its input, is without. Powers of two round nothing.
  float gradient_scale = 1.0f;
};

struct StageOutput {
  /// Not the last stage: num_samples x output_elements().
  TensorRef activation;
  /// Last stage: mean over the micro-batch's targets, nats.
  double loss = 0;
  /// Last stage, evaluation: targets that got the largest probability; -1 of
  /// stages that make no predictions.
  int64_t num_correct = -1;
};

class Stage {
 public:
  virtual ~Stage() = default;

  virtual const ParameterLayout& parameters() const = 0;
  virtual absl::Span<float> weights() = 0;
  virtual absl::Span<float> gradients() = 0;
  /// Tells that weights() were written.
  virtual absl::Status WeightsChanged() = 0;
  /// Of one sample's tensor before the first layer of the stage and after its
  /// last one. Images that are not of kImageSize have others.
  virtual BoundaryShape input_shape() const = 0;
  virtual BoundaryShape output_shape() const = 0;
  int64_t input_elements() const {
    return input_shape().rows * input_shape().columns;
  }
  int64_t output_elements() const {
    return output_shape().rows * output_shape().columns;
  }

  virtual absl::Status Forward(const StageInput& input,
                               StageOutput* output) = 0;
  /// `gradient` is that of this stage's output (empty for the last stage);
  /// returns the gradient of its input (empty for the first stage).
  /// FAILED_PRECONDITION without a Forward of this micro-batch.
  virtual absl::StatusOr<TensorRef> Backward(int microbatch,
                                             const TensorRef& gradient) = 0;

  /// gradients() in the order in which a Backward finishes them: ranges of
  /// whole segments, disjoint, together all of them. Depends on the layers
  /// alone, so that it is the same on all replicas. Empty: no order is known.
  virtual std::vector<ElementRange> gradient_order() const = 0;
  /// The next Backward is the step's last: calls `on_final(n)` with growing n
  /// as soon as the first n elements in gradient_order(), whole segments, will
  /// not change any more until WeightsChanged, from within Backward, on one
  /// thread at a time. The last values may not be told of: Backward's return
  /// tells. False for a stage that cannot tell before; it never calls.
  virtual bool WatchNextBackward(
      std::function<void(int64_t num_final)> on_final) = 0;

  /// Null for stages that save nothing.
  virtual SavedActivations* saved_activations() = 0;
};

/// Makes the layers [first_layer, end_layer) of the model. Initial weights
/// depend on (seed, parameter name) alone, so that they are the same for any
/// partition. `device` is "cpu" or "cuda". UNAVAILABLE if there is no such
/// device. Layers compute in train.precision; where that is fp16, a gradient of
/// the stage's input that overflows makes gradients() not finite, too, since
/// codecs may hide it from the stages before.
absl::StatusOr<std::unique_ptr<Stage>> MakeTorchStage(
    const v1::JobSpec& spec, int first_layer, int end_layer,
    const std::string& device);

/// Layers that sleep for the spec's times and exchange tensors of the
/// boundary's shape; a sample's tensors drift from visit to visit.
absl::StatusOr<std::unique_ptr<Stage>> MakeSyntheticStage(
    const v1::JobSpec& spec, int stage, int num_stages);

/// The device that `auto` means here, and its name for people: {"cpu", "cpu"}.
absl::StatusOr<std::pair<std::string, std::string>> ResolveDevice(
    const std::string& device);

/// Sets the threads of tensor operations in this process.
void SetComputeThreads(int num_threads);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_STAGE_H_
