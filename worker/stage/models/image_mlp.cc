// A perceptron over images: the pixels of the whole image, hidden layers of
// `width` with ReLU and dropout, ten classes. The tensor between stages is
// [samples, width].
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/image_model.h"
#include "torch/nn/modules/linear.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/stage/models/model.h"
#include "worker/stage/models/pixels.h"
#include "worker/stage/operators/dropout.h"

namespace deltapipe {
namespace {

class ImageMlp : public PartialModel {
 public:
  ImageMlp(const v1::ModelSpec& spec, int first_layer, int end_layer)
      : width_(spec.width()), first_layer_(first_layer) {
    for (int layer = first_layer; layer < end_layer; ++layer) {
      layers_.emplace_back(layer == 0 ? kImagePixels : width_, width_);
    }
    if (end_layer == spec.layers()) {
      head_ = torch::nn::Linear(width_, kNumImageClasses);
    }
  }

  std::vector<std::string> PartNames() const override {
    std::vector<std::string> names;
    if (first_layer_ == 0) names.push_back("embedding");
    for (size_t i = 0; i < layers_.size(); ++i) names.push_back(LayerName(i));
    if (!head_.is_empty()) names.push_back("head");
    return names;
  }

  at::Tensor ForwardPart(int part, const at::Tensor& input) override {
    if (first_layer_ == 0 && part-- == 0) {
      return NormalizedPixels(input.flatten(1),
                              layers_[0]->weight.scalar_type());
    }
    if (part < static_cast<int>(layers_.size())) {
      const auto i = static_cast<size_t>(part);
      const bool reads_pixels = first_layer_ == 0 && part == 0;
      SavedInput pixels(reads_pixels ? input.const_data_ptr() : nullptr);
      return DroppedRelu(layers_[i]->forward(input), LayerName(i), "relu");
    }
    return head_->forward(input);
  }

  std::vector<int64_t> InputShape(int64_t samples,
                                  int64_t /*elements*/) const override {
    if (first_layer_ > 0) return {samples, width_};
    return {samples, kImageSize, kImageSize};
  }

  std::vector<NamedParameter> Parameters() override {
    std::vector<NamedParameter> parameters;
    const auto add = [&](const std::string& name, torch::nn::Linear& linear,
                         double gain) {
      // He et al. 2015, equation 10; without the gain before the softmax.
      const auto inputs = static_cast<double>(linear->weight.size(1));
      parameters.push_back(
          {name + ".weight", linear->weight, std::sqrt(gain / inputs), 0});
      parameters.push_back({name + ".bias", linear->bias, 0, 0});
    };
    for (size_t i = 0; i < layers_.size(); ++i) {
      add(LayerName(i), layers_[i], 2);
    }
    if (!head_.is_empty()) add("head.output", head_, 1);
    return parameters;
  }

 private:
  std::string LayerName(size_t i) const {
    return absl::StrCat("layers.", first_layer_ + static_cast<int>(i));
  }

  const int64_t width_;
  const int first_layer_;
  std::vector<torch::nn::Linear> layers_;
  torch::nn::Linear head_{nullptr};
};

}  // namespace

std::unique_ptr<PartialModel> MakeImageMlp(const v1::ModelSpec& spec,
                                           int first_layer, int end_layer) {
  return std::make_unique<ImageMlp>(spec, first_layer, end_layer);
}

}  // namespace deltapipe
