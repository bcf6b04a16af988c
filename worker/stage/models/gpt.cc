// A byte-level GPT: token and position embeddings, pre-norm transformer blocks
// with causal attention, a final norm and a head (Radford et al., 2019), whose
// matrix is one of its own or, tied, that of the token embedding. Dropout is
// where theirs is, but for that of attention's softmax, which no fused
// attention keeps: of the embeddings' sum and of what each half of a block
// adds.
#include <cmath>
#include <utility>

#include "ATen/ops/arange.h"
#include "ATen/ops/linear.h"
#include "ATen/ops/scaled_dot_product_attention.h"
#include "absl/strings/str_cat.h"
#include "torch/nn/functional/activation.h"
#include "torch/nn/modules/embedding.h"
#include "torch/nn/modules/linear.h"
#include "torch/nn/modules/normalization.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/stage/models/model.h"
#include "worker/stage/operators/dropout.h"
#include "worker/stage/operators/gelu.h"
#include "worker/stage/operators/layer_norm.h"

namespace deltapipe {
namespace {

constexpr int64_t kVocabulary = 256;
constexpr double kInitDeviation = 0.02;
constexpr char kTokenWeight[] = "embedding.token.weight";

torch::nn::LayerNorm MakeNorm(int64_t width) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({width}));
}

at::Tensor Normed(const torch::nn::LayerNorm& norm, const at::Tensor& input) {
  return LayerNorm(input, norm->weight, norm->bias, norm->options.eps());
}

struct Block {
  explicit Block(const v1::ModelSpec& spec)
      : heads(spec.heads()),
        norm1(MakeNorm(spec.width())),
        attention(spec.width(), 3 * spec.width()),
        projection(spec.width(), spec.width()),
        norm2(MakeNorm(spec.width())),
        expand(spec.width(), 4 * spec.width()),
        contract(4 * spec.width(), spec.width()) {}

  at::Tensor Forward(const at::Tensor& input, const std::string& name) {
    const int64_t samples = input.size(0);
    const int64_t context = input.size(1);
    const int64_t width = input.size(2);
    const at::Tensor qkv =
        attention->forward(Normed(norm1, input))
            .view({samples, context, 3, heads, width / heads})
            .permute({2, 0, 3, 1, 4});
    const at::Tensor mixed =
        Attend(qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2))
            .transpose(1, 2)
            .reshape({samples, context, width});
    const at::Tensor attended =
        input + Dropout(projection->forward(mixed), name, "projection");
    const at::Tensor contracted =
        contract->forward(Gelu(expand->forward(Normed(norm2, attended))));
    return attended + Dropout(contracted, name, "contract");
  }

  static at::Tensor Attend(const at::Tensor& queries, const at::Tensor& keys,
                           const at::Tensor& values) {
    SavedFinely fine({queries.const_data_ptr(), keys.const_data_ptr()});
    return at::scaled_dot_product_attention(queries, keys, values, {}, 0.0,
                                            /*is_causal=*/true);
  }

  const int64_t heads;
  torch::nn::LayerNorm norm1;
  torch::nn::Linear attention;
  torch::nn::Linear projection;
  torch::nn::LayerNorm norm2;
  torch::nn::Linear expand;
  torch::nn::Linear contract;
};

void AddNorm(const std::string& name, torch::nn::LayerNorm& norm,
             std::vector<NamedParameter>* parameters) {
  parameters->push_back({absl::StrCat(name, ".weight"), norm->weight, 0, 1});
  parameters->push_back({absl::StrCat(name, ".bias"), norm->bias, 0, 0});
}

void AddLinear(const std::string& name, torch::nn::Linear& linear,
               double deviation, std::vector<NamedParameter>* parameters) {
  parameters->push_back(
      {absl::StrCat(name, ".weight"), linear->weight, deviation, 0});
  if (linear->bias.defined()) {
    parameters->push_back({absl::StrCat(name, ".bias"), linear->bias, 0, 0});
  }
}

class Gpt : public PartialModel {
 public:
  Gpt(const v1::ModelSpec& spec, int first_layer, int end_layer)
      : spec_(spec),
        first_layer_(first_layer),
        has_embedding_(first_layer == 0),
        has_head_(end_layer == spec.layers()),
        is_tied_(spec.tied() == "on") {
    if (has_embedding_) {
      token_ = torch::nn::Embedding(kVocabulary, spec.width());
      position_ = torch::nn::Embedding(spec.context(), spec.width());
    }
    for (int layer = first_layer; layer < end_layer; ++layer) {
      blocks_.emplace_back(spec);
    }
    if (has_head_) {
      norm_ = MakeNorm(spec.width());
      if (!shares_embedding()) {
        head_ = torch::nn::Linear(
            torch::nn::LinearOptions(spec.width(), kVocabulary).bias(false));
      }
    }
  }

  std::vector<std::string> PartNames() const override {
    std::vector<std::string> names;
    if (has_embedding_) names.push_back("embedding");
    for (size_t i = 0; i < blocks_.size(); ++i) names.push_back(BlockName(i));
    if (has_head_) names.push_back("head");
    return names;
  }

  at::Tensor ForwardPart(int part, const at::Tensor& input) override {
    if (has_embedding_ && part-- == 0) {
      const at::Tensor positions =
          at::arange(input.size(1), input.options().dtype(at::kLong));
      return Dropout(token_->forward(input) + position_->forward(positions),
                     "embedding", "sum");
    }
    if (part < static_cast<int>(blocks_.size())) {
      const auto i = static_cast<size_t>(part);
      return blocks_[i].Forward(input, BlockName(i));
    }
    const at::Tensor normed = Normed(norm_, input);
    SavedAsTheyAre as_they_are("the head");
    return at::linear(normed,
                      shares_embedding() ? token_->weight : head_->weight);
  }

  std::vector<int64_t> InputShape(int64_t samples,
                                  int64_t /*elements*/) const override {
    if (has_embedding_) return {samples, spec_.context()};
    return {samples, spec_.context(), spec_.width()};
  }

  std::vector<NamedParameter> Parameters() override {
    std::vector<NamedParameter> parameters;
    if (has_embedding_) {
      parameters.push_back({kTokenWeight, token_->weight, kInitDeviation, 0,
                            /*is_tied=*/is_tied_ && !has_head_});
      parameters.push_back(
          {"embedding.position.weight", position_->weight, kInitDeviation, 0});
    }
    // Residual projections start smaller, so that depth does not grow the
    // variance of the residual stream.
    const double residual = kInitDeviation / std::sqrt(2.0 * spec_.layers());
    for (size_t i = 0; i < blocks_.size(); ++i) {
      Block& block = blocks_[i];
      const std::string name = BlockName(i);
      AddNorm(name + ".norm1", block.norm1, &parameters);
      AddLinear(name + ".attention", block.attention, kInitDeviation,
                &parameters);
      AddLinear(name + ".projection", block.projection, residual, &parameters);
      AddNorm(name + ".norm2", block.norm2, &parameters);
      AddLinear(name + ".expand", block.expand, kInitDeviation, &parameters);
      AddLinear(name + ".contract", block.contract, residual, &parameters);
    }
    if (has_head_) {
      AddNorm("head.norm", norm_, &parameters);
      if (!is_tied_) {
        AddLinear("head.output", head_, kInitDeviation, &parameters);
      } else if (!has_embedding_) {
        parameters.push_back({kTokenWeight, head_->weight, kInitDeviation, 0,
                              /*is_tied=*/true});
      }
    }
    return parameters;
  }

 private:
  std::string BlockName(size_t i) const {
    return absl::StrCat("blocks.", first_layer_ + static_cast<int>(i));
  }
  /// Whether one tensor here is used twice.
  bool shares_embedding() const {
    return is_tied_ && has_embedding_ && has_head_;
  }

  const v1::ModelSpec spec_;
  const int first_layer_;
  const bool has_embedding_;
  const bool has_head_;
  const bool is_tied_;
  torch::nn::Embedding token_{nullptr};
  torch::nn::Embedding position_{nullptr};
  std::vector<Block> blocks_;
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear head_{nullptr};
};

}  // namespace

std::unique_ptr<PartialModel> MakeGpt(const v1::ModelSpec& spec,
                                      int first_layer, int end_layer) {
  return std::make_unique<Gpt>(spec, first_layer, end_layer);
}

}  // namespace deltapipe
