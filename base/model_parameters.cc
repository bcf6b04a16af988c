#include "base/model_parameters.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/image_model.h"

namespace deltapipe {
namespace {

constexpr int64_t kVocabulary = 256;
constexpr char kTokenWeight[] = "embedding.token.weight";
constexpr char kOutput[] = "head.output";

/// The parameters of layers [first, end), in the order in which they are added.
class Parameters {
 public:
  Parameters(const ModelShape& model, int first_layer, int end_layer)
      : model_(model),
        first_layer_(first_layer),
        end_layer_(end_layer),
        has_embedding_(first_layer == 0),
        has_head_(end_layer == model.layers) {}

  std::vector<ModelParameter> Gpt() {
    const int64_t width = model_.width;
    if (has_embedding_) {
      Add(kTokenWeight, {kVocabulary, width});
      Add("embedding.position.weight", {model_.context, width});
    }
    for (layer_ = first_layer_; layer_ < end_layer_; ++layer_) {
      const std::string block = absl::StrCat("blocks.", layer_);
      AddNorm(block + ".norm1", width);
      AddLinear(block + ".attention", width, 3 * width);
      AddLinear(block + ".projection", width, width);
      AddNorm(block + ".norm2", width);
      AddLinear(block + ".expand", width, 4 * width);
      AddLinear(block + ".contract", 4 * width, width);
    }
    layer_ = -1;
    if (has_head_) {
      AddNorm("head.norm", width);
      if (!model_.is_tied) {
        Add(absl::StrCat(kOutput, ".weight"), {kVocabulary, width});
      } else if (!has_embedding_) {
        Add(kTokenWeight, {kVocabulary, width});
      }
    }
    return std::move(parameters_);
  }

  std::vector<ModelParameter> Mlp() {
    const int64_t width = model_.width;
    if (has_embedding_) Add(kTokenWeight, {kVocabulary, width});
    for (layer_ = first_layer_; layer_ < end_layer_; ++layer_) {
      const std::string layer = absl::StrCat("layers.", layer_);
      AddLinear(layer + ".expand", 2 * width, 2 * width);
      AddLinear(layer + ".contract", 2 * width, width);
    }
    layer_ = -1;
    if (has_head_) AddLinear(kOutput, width, kVocabulary);
    return std::move(parameters_);
  }

  std::vector<ModelParameter> ImageMlp() {
    const int64_t width = model_.width;
    for (layer_ = first_layer_; layer_ < end_layer_; ++layer_) {
      AddLinear(absl::StrCat("layers.", layer_),
                layer_ == 0 ? kImagePixels : width, width);
    }
    layer_ = -1;
    if (has_head_) AddLinear(kOutput, width, kNumImageClasses);
    return std::move(parameters_);
  }

  std::vector<ModelParameter> ResNet() {
    const bool is_fixup = model_.norm == "fixup";
    if (has_embedding_) {
      Add("embedding.conv.weight", {model_.width, 1, 3, 3});
      if (is_fixup) {
        Add("embedding.bias", {1});
      } else {
        AddNorm("embedding.norm", model_.width);
      }
    }
    for (layer_ = first_layer_; layer_ < end_layer_; ++layer_) {
      AddResidualBlock(is_fixup);
    }
    layer_ = -1;
    if (has_head_) {
      AddLinear(kOutput,
                ResidualBlockOf(model_.layers - 1, model_.layers, model_.width)
                    .output_channels,
                kNumImageClasses);
      if (is_fixup) Add("head.bias", {1});
    }
    return std::move(parameters_);
  }

 private:
  void Add(std::string name, std::vector<int64_t> shape) {
    parameters_.push_back({std::move(name), std::move(shape), layer_});
  }
  void AddNorm(const std::string& name, int64_t size) {
    Add(name + ".weight", {size});
    Add(name + ".bias", {size});
  }
  void AddLinear(const std::string& name, int64_t inputs, int64_t outputs) {
    Add(name + ".weight", {outputs, inputs});
    Add(name + ".bias", {outputs});
  }
  void AddResidualBlock(bool is_fixup) {
    const ResidualBlockShape block =
        ResidualBlockOf(layer_, model_.layers, model_.width);
    const int64_t channels = block.output_channels;
    const std::string name = absl::StrCat("blocks.", layer_);
    Add(name + ".conv1.weight", {channels, block.input_channels, 3, 3});
    Add(name + ".conv2.weight", {channels, channels, 3, 3});
    if (!is_fixup) {
      AddNorm(name + ".norm1", channels);
      AddNorm(name + ".norm2", channels);
      return;
    }
    for (int i = 1; i <= 4; ++i) Add(absl::StrCat(name, ".bias", i), {1});
    Add(name + ".scale", {1});
  }

  const ModelShape& model_;
  const int first_layer_;
  const int end_layer_;
  const bool has_embedding_;
  const bool has_head_;
  int layer_ = -1;  // of what is added
  std::vector<ModelParameter> parameters_;
};

}  // namespace

std::vector<ModelParameter> ModelParametersOf(const ModelShape& model,
                                              int first_layer, int end_layer) {
  Parameters parameters(model, first_layer, end_layer);
  if (model.kind == "gpt") return parameters.Gpt();
  if (model.kind == "mlp") return parameters.Mlp();
  if (model.kind == "image_mlp") return parameters.ImageMlp();
  if (model.kind == "resnet") return parameters.ResNet();
  return {};
}

}  // namespace deltapipe
