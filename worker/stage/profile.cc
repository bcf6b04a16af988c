#include "worker/stage/profile.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/image_model.h"
#include "base/status_macros.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

constexpr int kRepeats = 7;
constexpr int kWarmUps = 2;
// As the coordinator knows it (saved_memory.cc).
constexpr char kHostClass[] = "in host memory";

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

/// Values in [-1, 1) that look like noise, the same each time: what is packed
/// by its range, or by how much of it is zero, must not be one value.
TensorRef Noise(int64_t num_elements) {
  const auto values =
      std::make_shared<std::vector<float>>(static_cast<size_t>(num_elements));
  uint32_t state = 1;
  for (float& value : *values) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes, section 7.1
    value = static_cast<float>(state >> 8) / 8388608.0f - 1;  // 2^23
  }
  return {*values, values};
}

/// Reports of one forward pass as sums by class, with what keeping track of
/// them takes as a class of its own. Weights are held anyway.
struct SavedSums {
  std::map<std::string, int64_t> raw;
  std::map<std::string, int64_t> stored;
};

/// Runs `stage` forward and backward and sums up what it saved.
absl::StatusOr<SavedSums> MeasureSaved(Stage* stage, const StageInput& input,
                                       const TensorRef& gradient) {
  SavedActivations* const saved = stage->saved_activations();
  saved->TakeBytes();
  StageOutput output;
  DP_RETURN_IF_ERROR(stage->Forward(input, &output));
  SavedSums sums;
  for (const SavedTensorReport& tensor : saved->LastForward()) {
    if (tensor.tensor_class == "weight") continue;
    sums.raw[tensor.tensor_class] += tensor.raw_bytes;
    sums.stored[tensor.tensor_class] += tensor.stored_bytes;
  }
  const SavedBytes bytes = saved->TakeBytes();
  sums.stored["metadata"] = bytes.metadata;
  // At the most: what a later save kept as it is had been moved already.
  if (bytes.offloaded > 0) sums.stored[kHostClass] = bytes.offloaded_peak;
  DP_RETURN_IF_ERROR(stage->Backward(0, gradient).status());
  return sums;
}

/// Fills in what the layer saves by class: as it is, and as the spec's policy
/// keeps it. Changes the stage's policy.
absl::Status ProfileSaved(const v1::JobSpec& spec, Stage* stage,
                          StageInput input, const TensorRef& gradient,
                          v1::LayerProfile* profile) {
  const std::string& policy = spec.compression().saved_activations();
  if (policy.empty() || policy == "none" ||
      stage->saved_activations() == nullptr) {
    return absl::OkStatus();
  }
  // What the passes before have measured is planned by.
  DP_RETURN_IF_ERROR(stage->WeightsChanged());
  input.step = 1;
  DP_ASSIGN_OR_RETURN(const SavedSums kept,
                      MeasureSaved(stage, input, gradient));
  // Where layers are computed again, most is not saved at all: what it would
  // be is seen without that.
  DP_RETURN_IF_ERROR(stage->saved_activations()->SetPolicy("fixed(none)"));
  input.step = 2;
  DP_ASSIGN_OR_RETURN(SavedSums plain, MeasureSaved(stage, input, gradient));
  for (const auto& [name, bytes] : kept.stored) plain.raw.insert({name, 0});
  for (const auto& [name, raw] : plain.raw) {
    const auto stored = kept.stored.find(name);
    v1::SavedClass* const sum = profile->add_saved();
    sum->set_name(name);
    sum->set_raw_bytes(raw);
    sum->set_stored_bytes(stored == kept.stored.end() ? 0 : stored->second);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::LayerProfile> ProfileLayer(v1::JobSpec spec, int layer,
                                              const OneLayerMaker& make) {
  const int64_t samples = spec.train().microbatch();
  // Errors of single operators are of no interest here, and take long.
  spec.mutable_compression()->set_saved_probe_every(0);
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Stage> stage, make(spec, layer));
  const bool is_last = layer + 1 == spec.model().layers();
  const v1::ModelSpec& model = spec.model();
  const bool is_image = IsImageModel(model.kind());
  std::vector<uint8_t> tokens(static_cast<size_t>(
      samples * (is_image ? kImagePixels : model.context())));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<uint8_t>('a' + (i * i / 7 + i) % 26);
  }
  // A byte of text, or a class.
  const std::vector<uint8_t> targets(
      static_cast<size_t>(samples *
                          TargetsPerSample(model.kind(), model.context())),
      5);
  StageInput input;
  input.num_samples = samples;
  // By which dropout draws.
  std::vector<uint64_t> keys(static_cast<size_t>(samples));
  std::iota(keys.begin(), keys.end(), 0);
  input.sample_keys = keys;
  input.tokens = tokens;
  input.targets = targets;
  if (layer > 0) input.activation = Noise(samples * stage->input_elements());
  TensorRef gradient;
  if (!is_last) gradient = Noise(samples * stage->output_elements());
  std::vector<double> forward;
  std::vector<double> backward;
  for (int repeat = 0; repeat < kWarmUps + kRepeats; ++repeat) {
    StageOutput output;
    auto begin = std::chrono::steady_clock::now();
    DP_RETURN_IF_ERROR(stage->Forward(input, &output));
    const double forward_seconds = Seconds(begin);
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
  DP_RETURN_IF_ERROR(
      ProfileSaved(spec, stage.get(), input, gradient, &profile));
  return profile;
}

}  // namespace

absl::StatusOr<v1::StageProfile> ProfileModel(const v1::JobSpec& spec,
                                              const std::string& device) {
  return ProfileLayers(spec, device,
                       [&device](const v1::JobSpec& of, int layer) {
                         return MakeTorchStage(of, layer, layer + 1, device);
                       });
}

absl::StatusOr<v1::StageProfile> ProfileLayers(const v1::JobSpec& spec,
                                               const std::string& device,
                                               const OneLayerMaker& make) {
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
    DP_ASSIGN_OR_RETURN(*profile.add_layers(), ProfileLayer(spec, layer, make));
  }
  return profile;
}

}  // namespace deltapipe
