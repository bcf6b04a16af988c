#include "coordinator/launch/estimate_profile.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

constexpr int64_t kVocabulary = 256;
constexpr int64_t kFloatBytes = 4;

/// Weights that multiply each token, of a layer alone.
int64_t Weights(const v1::ModelSpec& model) {
  const int64_t width = model.width();
  return (model.kind() == "mlp" ? 6 : 12) * width * width;
}

/// Biases and norms of a layer.
int64_t Offsets(const v1::ModelSpec& model) {
  return (model.kind() == "mlp" ? 3 : 13) * int64_t{model.width()};
}

/// What comes before the first layer.
int64_t EmbeddingParameters(const v1::ModelSpec& model) {
  const int64_t tokens = kVocabulary * model.width();
  if (model.kind() == "mlp") return tokens;
  return tokens + int64_t{model.context()} * model.width();
}

/// Of what comes before the first layer, what also follows the last one.
int64_t TiedParameters(const v1::ModelSpec& model) {
  return model.tied() == "on" ? kVocabulary * model.width() : 0;
}

/// What follows the last one.
int64_t HeadParameters(const v1::ModelSpec& model) {
  const int64_t weights = kVocabulary * model.width();
  // A bias, or a norm.
  return weights + (model.kind() == "mlp" ? kVocabulary : 2 * model.width());
}

/// Values per sample and layer that are kept for the backward pass.
int64_t SavedElements(const v1::ModelSpec& model) {
  const int64_t context = model.context();
  const int64_t width = model.width();
  if (model.kind() == "mlp") return context * width * 7;
  return context * (17 * width + model.heads() + 4);
}

/// Operations of a forward pass, per token.
double Operations(const v1::ModelSpec& model, bool is_last) {
  double operations = 2.0 * static_cast<double>(Weights(model));
  if (is_last) operations += 2.0 * kVocabulary * model.width();
  // Scores and their use, half of them behind the causal mask.
  if (model.kind() != "mlp")
    operations += 2.0 * model.context() * model.width();
  return operations;
}

}  // namespace

v1::StageProfile EstimateProfile(const v1::JobSpec& spec) {
  v1::StageProfile profile;
  const v1::ModelSpec& model = spec.model();
  if (model.kind() == "synthetic") return profile;
  const bool is_gpu = spec.parallel().device() == "cuda";
  profile.set_device(is_gpu ? "cuda" : "cpu");
  const double rate =
      is_gpu ? kAssumedGpuRate
             : kAssumedCoreRate * std::max(spec.parallel().threads(), 1);
  const int64_t samples = spec.train().microbatch();
  for (int i = 0; i < model.layers(); ++i) {
    const bool is_last = i + 1 == model.layers();
    v1::LayerProfile* const layer = profile.add_layers();
    layer->set_name(absl::StrCat(model.kind(), ".", i));
    const bool is_first = i == 0;
    layer->set_parameters(Weights(model) + Offsets(model) +
                          (is_first ? EmbeddingParameters(model) : 0) +
                          (is_last ? HeadParameters(model) : 0) -
                          // One layer alone has the matrix once.
                          (is_first && is_last ? TiedParameters(model) : 0));
    if (is_first != is_last) layer->set_tied_parameters(TiedParameters(model));
    layer->set_output_elements(int64_t{model.context()} * model.width());
    layer->set_saved_bytes(samples * SavedElements(model) * kFloatBytes);
    const double tokens = static_cast<double>(samples * model.context());
    layer->set_forward_seconds(tokens * Operations(model, is_last) / rate);
    // Gradients of inputs and of weights: two products for one.
    layer->set_backward_seconds(2 * layer->forward_seconds());
  }
  return profile;
}

}  // namespace deltapipe
