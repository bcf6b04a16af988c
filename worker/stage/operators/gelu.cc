#include "worker/stage/operators/gelu.h"

#include <memory>
#include <utility>

#include "ATen/core/grad_mode.h"
#include "ATen/ops/gelu.h"
#include "ATen/ops/gelu_backward.h"
#include "ATen/ops/ones_like.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/functions/utils.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/offered_substitute.h"

namespace deltapipe {
namespace {

using torch::autograd::variable_list;

struct GeluNode : public torch::autograd::Node {
  GeluNode(const at::Tensor& input, ActivationStash::Derivative derivative)
      : Node(torch::autograd::collect_next_edges(input)),
        derivative(std::move(derivative)) {}
  // Lists of saved tensors show it like that of LibTorch.
  std::string name() const override { return "GeluBackward"; }
  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor()};
    TORCH_CHECK(derivative != nullptr,
                "gelu: its derivative was freed by an earlier backward pass");
    const at::ScalarType type = gradients[0].scalar_type();
    return {gradients[0].to(at::kFloat).mul(derivative()).to(type)};
  }
  void release_variables() override { derivative = nullptr; }

  ActivationStash::Derivative derivative;
};

}  // namespace

at::Tensor GeluDerivative(const at::Tensor& input) {
  at::NoGradGuard no_grad;
  const at::Tensor values = input.to(at::kFloat);
  return at::gelu_backward(at::ones_like(values), values);
}

at::Tensor Gelu(const at::Tensor& input) {
  ActivationStash* const stash =
      at::GradMode::is_enabled() && input.requires_grad()
          ? ActivationStash::Current()
          : nullptr;
  if (stash == nullptr) return at::gelu(input);
  ActivationStash::Derivative derivative =
      stash->KeepDerivative(input, [&] { return GeluDerivative(input); });
  if (derivative == nullptr) {
    OfferedSubstitute offer(input.const_data_ptr(),
                            SavedSubstitute::kDerivative);
    return at::gelu(input);
  }
  at::Tensor result;
  {
    at::NoGradGuard no_grad;
    result = at::gelu(input);
  }
  const std::shared_ptr<GeluNode> node(
      new GeluNode(input, std::move(derivative)), torch::autograd::deleteNode);
  torch::autograd::set_history(result, node);
  return result;
}

}  // namespace deltapipe
