#include "worker/saved_activations/gradient_meter.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <unordered_set>
#include <utility>

#include "ATen/core/Tensor.h"
#include "compression/bit_plan/bit_ladder.h"
#include "torch/csrc/autograd/function_hook.h"
#include "torch/csrc/autograd/functions/accumulate_grad.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kGroup = kBitGroup;

}  // namespace

/// Sees the gradients that come into a node, before it runs.
class GradientWatch : public torch::autograd::FunctionPreHook {
 public:
  GradientWatch(GradientMeter* meter, std::string node)
      : meter_(meter), node_(std::move(node)) {}

  torch::autograd::variable_list operator()(
      const torch::autograd::variable_list& gradients) override {
    GradientMeter::Incoming incoming;
    incoming.node = node_;
    double sum = 0;
    for (const at::Tensor& gradient : gradients) {
      if (!gradient.defined()) continue;
      const at::Tensor values = gradient.detach().to(at::kFloat);
      incoming.squares += values.square().sum().item<double>();
      sum += values.abs().sum().item<double>();
      incoming.elements += values.numel();
    }
    if (incoming.elements > 0) {
      incoming.mean_abs = sum / static_cast<double>(incoming.elements);
    }
    meter_->current_ = std::move(incoming);
    return gradients;
  }

 private:
  GradientMeter* const meter_;
  const std::string node_;
};

void GradientMeter::NoteSaved(const SavedTensor& tensor,
                              absl::Span<const float> values) {
  SavedMeasurement measurement;
  measurement.tensor = tensor;
  measurement.gradient_squares = kNotMeasured;
  measurement.gradient_mean_abs = kNotMeasured;
  measurement.parameter_gradient_mean_abs = kNotMeasured;
  measurement.sensitivity = kNotMeasured;
  int64_t nonzeros = 0;
  for (size_t begin = 0; begin < values.size(); begin += kGroup) {
    const auto group = values.subspan(begin, kGroup);
    float least = group[0];
    float most = group[0];
    for (const float value : group) {
      least = std::min(least, value);
      most = std::max(most, value);
      nonzeros += value != 0 ? 1 : 0;
    }
    const double range = static_cast<double>(most) - least;
    measurement.range_squares += range * range;
  }
  measurement.nonzero_share =
      static_cast<double>(nonzeros) / static_cast<double>(values.size());
  by_name_[tensor.name] = measurements_.size();
  measurements_.push_back(std::move(measurement));
}

void GradientMeter::NoteRead(const std::string& name) {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return;
  SavedMeasurement& measurement = measurements_[found->second];
  // Of several readers that whose gradient is largest counts.
  if (current_.elements == 0 ||
      measurement.gradient_squares > current_.squares) {
    return;
  }
  measurement.gradient_squares = current_.squares;
  measurement.gradient_mean_abs = current_.mean_abs;
  measurement.gradient_elements = current_.elements;
  measurement.reader = current_.node;
}

void GradientMeter::Watch(const torch::autograd::Edge& root) {
  std::unordered_set<const torch::autograd::Node*> seen;
  std::vector<std::shared_ptr<torch::autograd::Node>> open = {root.function};
  while (!open.empty()) {
    const std::shared_ptr<torch::autograd::Node> node = std::move(open.back());
    open.pop_back();
    if (node == nullptr || !seen.insert(node.get()).second) continue;
    // Nodes of parameters outlive the graph.
    if (dynamic_cast<torch::autograd::AccumulateGrad*>(node.get()) != nullptr) {
      continue;
    }
    node->add_pre_hook(
        std::make_unique<GradientWatch>(this, OperatorName(node->name())));
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      open.push_back(edge.function);
    }
  }
}

std::vector<SavedMeasurement> GradientMeter::Take() {
  by_name_.clear();
  return std::exchange(measurements_, {});
}

}  // namespace deltapipe
