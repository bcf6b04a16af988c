#include "worker/stage/profile.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
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

/// Values per sample and layer that autograd keeps for the backward pass, as
/// the layer's operations document them; attention keeps no matrix of scores.
int64_t SavedElements(const v1::ModelSpec& model) {
  const int64_t context = model.context();
  const int64_t width = model.width();
  if (model.kind() == "mlp") return context * width * 7;
  return context * (17 * width + model.heads() + 4);
}

absl::StatusOr<v1::LayerProfile> ProfileLayer(const v1::JobSpec& spec,
                                              int layer,
                                              const std::string& device) {
  const int64_t samples = spec.train().microbatch();
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage,
                      MakeTorchStage(spec, layer, layer + 1, device));
  const bool is_last = layer + 1 == spec.model().layers();
  const size_t elements =
      static_cast<size_t>(samples * stage->boundary_elements());
  const auto values = std::make_shared<std::vector<float>>(elements, 0.5f);
  const std::vector<uint8_t> bytes(
      static_cast<size_t>(samples * spec.model().context()), 'e');
  StageInput input;
  input.num_samples = samples;
  input.tokens = bytes;
  input.targets = bytes;
  if (layer > 0) input.activation = {*values, values};
  std::vector<double> forward;
  std::vector<double> backward;
  for (int repeat = 0; repeat < kWarmUps + kRepeats; ++repeat) {
    StageOutput output;
    auto begin = std::chrono::steady_clock::now();
    DP_RETURN_IF_ERROR(stage->Forward(input, &output));
    const double forward_seconds = Seconds(begin);
    TensorRef gradient;
    if (!is_last) gradient = {*values, values};
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
  profile.set_output_elements(stage->boundary_elements());
  const std::string& precision = spec.train().precision();
  const int64_t element_bytes =
      precision == "bf16" || precision == "fp16" ? 2 : 4;
  profile.set_saved_bytes(samples * SavedElements(spec.model()) *
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
    // Inner layers are alike, but for their names.
    if (layer >= 2 && layer + 1 < num_layers) {
      v1::LayerProfile copy = profile.layers(1);
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
