// A byte-level perceptron over the context: layer i adds to each position a
// two-layer perceptron of that position and the one 2^(i mod 6) before it, so
// that a few layers see a few dozen bytes, causally. Dropout follows each gelu.
#include <utility>

#include "ATen/ops/cat.h"
#include "ATen/ops/constant_pad_nd.h"
#include "absl/strings/str_cat.h"
#include "torch/nn/modules/embedding.h"
#include "torch/nn/modules/linear.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/stage/models/model.h"
#include "worker/stage/operators/dropout.h"
#include "worker/stage/operators/gelu.h"

namespace deltapipe {
namespace {

constexpr int64_t kVocabulary = 256;

struct MixingLayer {
  MixingLayer(int64_t width, int64_t shift)
      : shift(shift),
        expand(2 * width, 2 * width),
        contract(2 * width, width) {}

  at::Tensor Forward(const at::Tensor& input, const std::string& name) {
    const int64_t kept = std::max<int64_t>(input.size(1) - shift, 0);
    const at::Tensor earlier = at::constant_pad_nd(
        input.narrow(1, 0, kept), {0, 0, input.size(1) - kept, 0});
    const at::Tensor expanded =
        Gelu(expand->forward(at::cat({input, earlier}, 2)));
    return input + contract->forward(Dropout(expanded, name, "gelu"));
  }

  const int64_t shift;
  torch::nn::Linear expand;
  torch::nn::Linear contract;
};

class Mlp : public PartialModel {
 public:
  Mlp(const v1::ModelSpec& spec, int first_layer, int end_layer)
      : first_layer_(first_layer),
        width_(spec.width()),
        context_(spec.context()) {
    if (first_layer == 0) {
      token_ = torch::nn::Embedding(kVocabulary, spec.width());
    }
    for (int layer = first_layer; layer < end_layer; ++layer) {
      layers_.emplace_back(spec.width(), int64_t{1} << (layer % 6));
    }
    if (end_layer == spec.layers()) {
      head_ = torch::nn::Linear(spec.width(), kVocabulary);
    }
  }

  std::vector<std::string> PartNames() const override {
    std::vector<std::string> names;
    if (!token_.is_empty()) names.push_back("embedding");
    for (size_t i = 0; i < layers_.size(); ++i) names.push_back(LayerName(i));
    if (!head_.is_empty()) names.push_back("head");
    return names;
  }

  at::Tensor ForwardPart(int part, const at::Tensor& input) override {
    if (!token_.is_empty() && part-- == 0) return token_->forward(input);
    if (part < static_cast<int>(layers_.size())) {
      const auto i = static_cast<size_t>(part);
      return layers_[i].Forward(input, LayerName(i));
    }
    SavedAsTheyAre as_they_are("the head");
    return head_->forward(input);
  }

  std::vector<int64_t> InputShape(int64_t samples,
                                  int64_t /*elements*/) const override {
    if (!token_.is_empty()) return {samples, context_};
    return {samples, context_, width_};
  }

  std::vector<NamedParameter> Parameters() override {
    std::vector<NamedParameter> parameters;
    const double deviation = 0.5 / std::sqrt(static_cast<double>(width_));
    const auto add = [&](const std::string& name, torch::nn::Linear& linear) {
      parameters.push_back({name + ".weight", linear->weight, deviation, 0});
      parameters.push_back({name + ".bias", linear->bias, 0, 0});
    };
    if (!token_.is_empty()) {
      parameters.push_back({"embedding.token.weight", token_->weight, 0.5, 0});
    }
    for (size_t i = 0; i < layers_.size(); ++i) {
      const std::string name = LayerName(i);
      add(name + ".expand", layers_[i].expand);
      add(name + ".contract", layers_[i].contract);
    }
    if (!head_.is_empty()) add("head.output", head_);
    return parameters;
  }

 private:
  std::string LayerName(size_t i) const {
    return absl::StrCat("layers.", first_layer_ + static_cast<int>(i));
  }

  const int first_layer_;
  const int64_t width_;
  const int64_t context_;
  torch::nn::Embedding token_{nullptr};
  std::vector<MixingLayer> layers_;
  torch::nn::Linear head_{nullptr};
};

}  // namespace

std::unique_ptr<PartialModel> MakeMlp(const v1::ModelSpec& spec,
                                      int first_layer, int end_layer) {
  return std::make_unique<Mlp>(spec, first_layer, end_layer);
}

}  // namespace deltapipe
