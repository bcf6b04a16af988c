#include "worker/stage/operators/dropout.h"

#include <memory>
#include <string>
#include <utility>

#include "ATen/Parallel.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/ones.h"
#include "ATen/ops/relu.h"
#include "ATen/ops/threshold_backward.h"
#include "absl/strings/str_cat.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/functions/utils.h"
#include "torch/csrc/autograd/saved_variable.h"
#include "worker/stage/operators/dropout_draw.h"

namespace deltapipe {
namespace {

using torch::autograd::variable_list;

/// `out` = `in` times its factors, both in fp32, on the host and contiguous.
void Drop(const DropoutDraw& draw, const std::string& place,
          const at::Tensor& in, const at::Tensor& out) {
  const int64_t samples = in.size(0);
  const auto size =
      static_cast<size_t>(samples == 0 ? 0 : in.numel() / samples);
  const float* const from = in.const_data_ptr<float>();
  float* const to = out.mutable_data_ptr<float>();
  at::parallel_for(0, samples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto sample = static_cast<size_t>(i);
      DropSample(draw, place, sample, {from + sample * size, size},
                 {to + sample * size, size});
    }
  });
}

/// Without a graph.
at::Tensor Dropped(const DropoutDraw& draw, const std::string& place,
                   const at::Tensor& values) {
  if (values.is_cpu() && values.scalar_type() == at::kFloat) {
    const at::Tensor in = values.contiguous();
    at::Tensor out = at::empty_like(in);
    Drop(draw, place, in, out);
    return out;
  }
  const at::Tensor factors = at::ones(values.sizes(), at::kFloat);
  Drop(draw, place, factors, factors);
  return values.to(at::kFloat)
      .mul(factors.to(values.device()))
      .to(values.scalar_type());
}

void CheckSamples(const DropoutDraw& draw, const std::string& place,
                  const at::Tensor& input) {
  TORCH_CHECK(input.dim() > 0 && input.size(0) == static_cast<int64_t>(
                                                      draw.sample_keys.size()),
              "dropout at ", place, ": a tensor of sizes ", input.sizes(),
              " of a micro-batch with ", draw.sample_keys.size(),
              " sample keys: the first extent must count samples");
}

bool NeedsGradient(const at::Tensor& input) {
  return at::GradMode::is_enabled() && input.requires_grad();
}

/// Draws again.
struct DropoutNode : public torch::autograd::Node {
  DropoutNode(const at::Tensor& input, std::shared_ptr<const DropoutDraw> draw,
              std::string place)
      : Node(torch::autograd::collect_next_edges(input)),
        draw(std::move(draw)),
        place(std::move(place)) {}
  std::string name() const override { return "DropoutBackward"; }
  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor()};
    return {Dropped(*draw, place, gradients[0])};
  }

  // The micro-batch's other nodes and its graph hold it, too.
  const std::shared_ptr<const DropoutDraw> draw;
  const std::string place;
};

/// The result says what was dropped.
struct DroppedReluNode : public torch::autograd::Node {
  DroppedReluNode(const at::Tensor& input, float scale)
      : Node(torch::autograd::collect_next_edges(input)), scale(scale) {}
  std::string name() const override { return "DroppedReluBackward"; }
  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return {at::Tensor()};
    return {at::threshold_backward(gradients[0].mul(scale),
                                   result.unpack(getptr()), 0)};
  }
  void release_variables() override { result.reset_data(); }

  const float scale;
  torch::autograd::SavedVariable result;
};

}  // namespace

at::Tensor Dropout(const at::Tensor& input, absl::string_view layer,
                   absl::string_view place) {
  std::shared_ptr<const DropoutDraw> draw = DropoutScope::Current();
  if (draw == nullptr) return input;
  std::string name = absl::StrCat(layer, "/", place);
  CheckSamples(*draw, name, input);
  at::Tensor result = Dropped(*draw, name, input.detach());
  if (NeedsGradient(input)) {
    const std::shared_ptr<DropoutNode> node(
        new DropoutNode(input, std::move(draw), std::move(name)),
        torch::autograd::deleteNode);
    torch::autograd::set_history(result, node);
  }
  return result;
}

at::Tensor DroppedRelu(const at::Tensor& input, absl::string_view layer,
                       absl::string_view place) {
  const std::shared_ptr<const DropoutDraw> draw = DropoutScope::Current();
  if (draw == nullptr) return at::relu(input);
  const std::string name = absl::StrCat(layer, "/", place);
  CheckSamples(*draw, name, input);
  at::Tensor result = Dropped(*draw, name, at::relu(input.detach()));
  if (NeedsGradient(input)) {
    const std::shared_ptr<DroppedReluNode> node(
        new DroppedReluNode(input, draw->scale()), torch::autograd::deleteNode);
    torch::autograd::set_history(result, node);
    node->result = torch::autograd::SavedVariable(result, /*is_output=*/true);
  }
  return result;
}

}  // namespace deltapipe
