#include "coordinator/launch/estimate_profile.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/image_model.h"

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

/// Of one layer and one sample; the embedding counts to the first layer, the
/// head to the last.
struct LayerFacts {
  int64_t parameters = 0;
  int64_t tied_parameters = 0;
  int64_t saved_elements = 0;
  double operations = 0;  // of a forward pass
};

LayerFacts TextLayer(const v1::ModelSpec& model, int layer) {
  const bool is_first = layer == 0;
  const bool is_last = layer + 1 == model.layers();
  LayerFacts facts;
  facts.parameters = Weights(model) + Offsets(model) +
                     (is_first ? EmbeddingParameters(model) : 0) +
                     (is_last ? HeadParameters(model) : 0) -
                     // One layer alone has the matrix once.
                     (is_first && is_last ? TiedParameters(model) : 0);
  if (is_first != is_last) facts.tied_parameters = TiedParameters(model);
  facts.saved_elements = SavedElements(model);
  facts.operations = model.context() * Operations(model, is_last);
  return facts;
}

LayerFacts ImageMlpLayer(const v1::ModelSpec& model, int layer) {
  const int64_t width = model.width();
  const int64_t inputs = layer == 0 ? kImagePixels : width;
  const bool is_last = layer + 1 == model.layers();
  LayerFacts facts;
  facts.parameters =
      (inputs + 1) * width + (is_last ? kNumImageClasses * (width + 1) : 0);
  facts.saved_elements = width;
  facts.operations = 2.0 * static_cast<double>(facts.parameters);
  return facts;
}

LayerFacts ResNetLayer(const v1::ModelSpec& model, int layer) {
  const ResidualBlockShape block =
      ResidualBlockOf(layer, model.layers(), model.width());
  const int64_t in = block.input_channels;
  const int64_t out = block.output_channels;
  const bool is_fixup = model.norm() == "fixup";
  LayerFacts facts;
  const auto add_convolution = [&](int64_t inputs, int64_t outputs,
                                   int64_t size) {
    const int64_t weights = 9 * inputs * outputs;
    facts.parameters += weights;
    facts.operations += 2.0 * static_cast<double>(weights * size * size);
  };
  add_convolution(in, out, block.output_size);
  add_convolution(out, out, block.output_size);
  // Four shifts and a scale, or two norms.
  facts.parameters += is_fixup ? 5 : 4 * out;
  if (layer == 0) {
    add_convolution(1, in, kImageSize);
    facts.parameters += is_fixup ? 1 : 2 * in;
  }
  if (layer + 1 == model.layers()) {
    facts.parameters += kNumImageClasses * (out + 1) + (is_fixup ? 1 : 0);
  }
  facts.saved_elements = ResidualSavedElements(block, model.norm());
  return facts;
}

LayerFacts FactsOf(const v1::ModelSpec& model, int layer) {
  if (model.kind() == "image_mlp") return ImageMlpLayer(model, layer);
  if (model.kind() == "resnet") return ResNetLayer(model, layer);
  return TextLayer(model, layer);
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
    const LayerFacts facts = FactsOf(model, i);
    const BoundaryShape shape = BoundaryShapeOf(
        model.kind(), i + 1, model.layers(), model.width(), model.context());
    v1::LayerProfile* const layer = profile.add_layers();
    layer->set_name(absl::StrCat(model.kind(), ".", i));
    layer->set_parameters(facts.parameters);
    if (facts.tied_parameters > 0) {
      layer->set_tied_parameters(facts.tied_parameters);
    }
    layer->set_output_elements(shape.rows * shape.columns);
    layer->set_saved_bytes(samples * facts.saved_elements * kFloatBytes);
    layer->set_forward_seconds(static_cast<double>(samples) * facts.operations /
                               rate);
    // Gradients of inputs and of weights: two products for one.
    layer->set_backward_seconds(2 * layer->forward_seconds());
  }
  return profile;
}

}  // namespace deltapipe
