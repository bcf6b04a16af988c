#include "worker/stage/operators/layer_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/layer_norm.h"
#include "ATen/ops/native_layer_norm.h"
#include "ATen/ops/native_layer_norm_backward.h"
#include "ATen/ops/ones_like.h"
#include "ATen/ops/zeros_like.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/functions/utils.h"
#include "torch/csrc/autograd/saved_variable.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/offered_substitute.h"

namespace deltapipe {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

struct LayerNormNode : public torch::autograd::Node {
  LayerNormNode(const at::Tensor& input, const at::Tensor& weight,
                const at::Tensor& bias)
      : Node(torch::autograd::collect_next_edges(input, weight, bias)) {}
  // Lists of saved tensors show it like that of LibTorch.
  std::string name() const override { return "NativeLayerNormBackward"; }

  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return variable_list(3);
    const at::ScalarType type = gradients[0].scalar_type();
    const at::Tensor gradient = gradients[0].to(at::kFloat);
    const at::Tensor scale = weight.unpack().to(at::kFloat);
    const at::Tensor shift = bias.unpack().to(at::kFloat);
    const at::Tensor normalised =
        output.unpack(getptr()).to(at::kFloat).sub(shift).div_(scale);
    const at::Tensor deviation = reciprocal_deviation.unpack().to(at::kFloat);
    // Of an input with mean 0 and deviation 1, which the normalised values are;
    // their own input is stretched by the deviation.
    const auto [of_input, of_weight, of_bias] = at::native_layer_norm_backward(
        gradient, normalised, scale.sizes(), at::zeros_like(deviation),
        at::ones_like(deviation), scale, shift, {true, true, true});
    return {of_input.mul(deviation).to(type), of_weight.to(type),
            of_bias.to(type)};
  }
  void release_variables() override {
    output.reset_data();
    weight.reset_data();
    bias.reset_data();
    reciprocal_deviation.reset_data();
  }

  SavedVariable output;
  SavedVariable weight;
  SavedVariable bias;
  SavedVariable reciprocal_deviation;
};

struct Extremes {
  float least = 0;
  float most = 0;
};

/// Of magnitudes; from 0 to infinity where one is no finite number.
Extremes MagnitudesOf(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  const float* const values = host.const_data_ptr<float>();
  Extremes extremes{std::abs(values[0]), 0};
  for (int64_t i = 0; i < host.numel(); ++i) {
    const float magnitude = std::abs(values[i]);
    extremes.least = std::min(extremes.least, magnitude);
    extremes.most = std::max(extremes.most, magnitude);
    if (!std::isfinite(magnitude)) {
      return {0, std::numeric_limits<float>::infinity()};
    }
  }
  return extremes;
}

}  // namespace

bool DeterminesItsInput(const at::Tensor& weight, const at::Tensor& bias) {
  if (weight.numel() == 0) return false;
  const Extremes weights = MagnitudesOf(weight);
  const float reach = weights.most + MagnitudesOf(bias).most;
  return weights.least > 0 && kLargestSpread * weights.least >= reach;
}

at::Tensor LayerNormFromOutput(const at::Tensor& input,
                               const at::Tensor& weight, const at::Tensor& bias,
                               double epsilon) {
  at::Tensor output;
  at::Tensor reciprocal_deviation;
  {
    at::NoGradGuard no_grad;
    std::tie(output, std::ignore, reciprocal_deviation) =
        at::native_layer_norm(input, weight.sizes(), weight, bias, epsilon);
  }
  const std::shared_ptr<LayerNormNode> node(
      new LayerNormNode(input, weight, bias), torch::autograd::deleteNode);
  torch::autograd::set_history(output, node);
  node->output = SavedVariable(output, /*is_output=*/true);
  node->weight = SavedVariable(weight, /*is_output=*/false);
  node->bias = SavedVariable(bias, /*is_output=*/false);
  node->reciprocal_deviation =
      SavedVariable(reciprocal_deviation, /*is_output=*/false);
  return output;
}

at::Tensor LayerNorm(const at::Tensor& input, const at::Tensor& weight,
                     const at::Tensor& bias, double epsilon) {
  const auto plain = [&] {
    return at::layer_norm(input, weight.sizes(), weight, bias, epsilon);
  };
  ActivationStash* const stash =
      at::GradMode::is_enabled() && input.requires_grad()
          ? ActivationStash::Current()
          : nullptr;
  if (stash == nullptr) return plain();
  // On a GPU to look at the weights is to wait for it: where need be only.
  const bool is_host = weight.is_cpu();
  if (is_host && !DeterminesItsInput(weight, bias)) return plain();
  if (stash->TakesOutputOf(
          input, [&] { return is_host || DeterminesItsInput(weight, bias); })) {
    return LayerNormFromOutput(input, weight, bias, epsilon);
  }
  OfferedSubstitute offer(input.const_data_ptr(), SavedSubstitute::kOutput);
  return plain();
}

}  // namespace deltapipe
