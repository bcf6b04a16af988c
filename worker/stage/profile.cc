#include "worker/stage/profile.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/image_model.h"
#include "base/status_macros.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

constexpr int kRepeats = 7;
constexpr int kWarmUps = 2;

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

/// Values per sample of a layer that autograd keeps for the backward pass, as
/// the layer's operations document them; attention keeps no matrix of scores.
int64_t SavedElements(const v1::ModelSpec& model, int layer) {
  const int64_t context = model.context();
  const int64_t width = model.width();
  if (model.kind() == "mlp") return context * width * 7;
  // What an activation returns, which the next layer's product needs, too.
  if (model.kind() == "image_mlp") return width;
  if (model.kind() == "resnet") {
    return ResidualSavedElements(
        ResidualBlockOf(layer, model.layers(), model.width()), model.norm());
  }
  return context * (17 * width + model.heads() + 4);
}

/// Inner layers are alike, but for their names, and blocks of a residual
/// network within a group.
bool IsLikeTheOneBefore(const v1::ModelSpec& model, int layer) {
  if (layer < 2 || layer + 1 >= model.layers()) return false;
  if (model.kind() != "resnet") return true;
  return ResidualBlockOf(layer, model.layers(), model.width()) ==
         ResidualBlockOf(layer - 1, model.layers(), model.width());
}

absl::StatusOr<v1::LayerProfile> ProfileLayer(const v1::JobSpec& spec,
                                              int layer,
                                              const std::string& device) {
  const int64_t samples = spec.train().microbatch();
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage,
                      MakeTorchStage(spec, layer, layer + 1, device));
  const bool is_last = layer + 1 == spec.model().layers();
  const auto filled = [samples](int64_t elements) -> TensorRef {
    const auto values = std::make_shared<std::vector<float>>(
        static_cast<size_t>(samples * elements), 0.5f);
    return {*values, values};
  };
  const v1::ModelSpec& model = spec.model();
  const bool is_image = IsImageModel(model.kind());
  const std::vector<uint8_t> tokens(
      static_cast<size_t>(samples *
                          (is_image ? kImagePixels : model.context())),
      'e');
  // A byte of text, or a class.
  const std::vector<uint8_t> targets(
      static_cast<size_t>(samples *
                          TargetsPerSample(model.kind(), model.context())),
      5);
  StageInput input;
  input.num_samples = samples;
  input.tokens = tokens;
  input.targets = targets;
  if (layer > 0) input.activation = filled(stage->input_elements());
  std::vector<double> forward;
  std::vector<double> backward;
  for (int repeat = 0; repeat < kWarmUps + kRepeats; ++repeat) {
    StageOutput output;
    auto begin = std::chrono::steady_clock::now();
    DP_RETURN_IF_ERROR(stage->Forward(input, &output));
    const double forward_seconds = Seconds(begin);
    TensorRef gradient;
    if (!is_last) gradient = filled(stage->output_elements());
    begin = std::chrono::steady_clock::now();
    DP_RETURN_IF_ERROR(stage->Backward(0, gradient).status());
    if (repeat < kWarmUps) continue;
    forward.push_back(forward_seconds);
    backward.push_back(Seconds(begin));
  }
  v1::LayerProfile profile;
  profile.set_name(absl::StrCat(spec.model().kind(), ".", layer));
  profile.set_forward_seconds(Median(forward));
  profile.set_backward_seconds(Median(backward));
  profile.set_parameters(stage->parameters().num_elements);
  profile.set_tied_parameters(stage->parameters().num_tied);
  profile.set_output_elements(stage->output_elements());
  const std::string& precision = spec.train().precision();
  const int64_t element_bytes =
      precision == "bf16" || precision == "fp16" ? 2 : 4;
  profile.set_saved_bytes(samples * SavedElements(spec.model(), layer) *
                          element_bytes);
  return profile;
}

}  // namespace

absl::StatusOr<v1::StageProfile> ProfileModel(const v1::JobSpec& spec,
                                              const std::string& device) {
  v1::StageProfile profile;
  profile.set_device(device);
  const int num_layers = spec.model().layers();
  for (int layer = 0; layer < num_layers; ++layer) {
    if (IsLikeTheOneBefore(spec.model(), layer)) {
      v1::LayerProfile copy = profile.layers(layer - 1);
      copy.set_name(absl::StrCat(spec.model().kind(), ".", layer));
      *profile.add_layers() = copy;
      continue;
    }
    DP_ASSIGN_OR_RETURN(*profile.add_layers(),
                        ProfileLayer(spec, layer, device));
  }
  return profile;
}

}  // namespace deltapipe
