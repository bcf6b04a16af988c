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
#include "torch/csrc/autograd/generated/Functions.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();
constexpr size_t kGroup = kBitGroup;

/// Adds `value`, of `count` elements from `begin` on, to the rows of `row_size`
/// elements that they are in.
void Share(double value, size_t begin, size_t count, size_t row_size,
           std::vector<double>* rows) {
  const size_t end = begin + count;
  while (begin < end) {
    const size_t row = begin / row_size;
    const size_t next = std::min(end, (row + 1) * row_size);
    (*rows)[row] +=
        value * static_cast<double>(next - begin) / static_cast<double>(count);
    begin = next;
  }
}

/// SavedMeasurement::alignment; 1 if rows are not the same.
double AlignmentOf(const std::vector<double>& ranges,
                   const std::vector<double>& squares) {
  if (ranges.empty() || ranges.size() != squares.size()) return 1;
  double range_sum = 0;
  double square_sum = 0;
  double products = 0;
  for (size_t n = 0; n < ranges.size(); ++n) {
    range_sum += ranges[n];
    square_sum += squares[n];
    products += ranges[n] * squares[n];
  }
  const double alignment =
      static_cast<double>(ranges.size()) * products / (range_sum * square_sum);
  return std::isfinite(alignment) ? alignment : 1;
}

}  // namespace

/// Sees the gradients that come into a node, before it runs.
class GradientWatch : public torch::autograd::FunctionPreHook {
 public:
  GradientWatch(GradientMeter* meter, std::string node,
                GradientMeter::NodeFacts facts)
      : meter_(meter), node_(std::move(node)), facts_(facts) {}

  torch::autograd::variable_list operator()(
      const torch::autograd::variable_list& gradients) override {
    GradientMeter::Incoming incoming;
    incoming.node = node_;
    incoming.facts = facts_;
    double sum = 0;
    for (const at::Tensor& gradient : gradients) {
      if (!gradient.defined()) continue;
      const at::Tensor values = gradient.detach().to(at::kFloat);
      incoming.squares += values.square().sum().item<double>();
      sum += values.abs().sum().item<double>();
      incoming.elements += values.numel();
      if (gradients.size() == 1 && values.dim() > 1) {
        const at::Tensor rows =
            values.square().flatten(1).sum(1).to(at::kCPU, at::kDouble);
        incoming.row_squares.assign(
            rows.const_data_ptr<double>(),
            rows.const_data_ptr<double>() + rows.numel());
      }
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
  const GradientMeter::NodeFacts facts_;
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
  const size_t num_rows =
      tensor.shape.size() > 1 ? static_cast<size_t>(tensor.shape[0]) : 0;
  const bool has_rows = num_rows > 0 && values.size() % num_rows == 0;
  std::vector<double> rows(has_rows ? num_rows : 0);
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
    if (!rows.empty()) {
      Share(range * range, begin, group.size(), values.size() / num_rows,
            &rows);
    }
  }
  measurement.nonzero_share =
      static_cast<double>(nonzeros) / static_cast<double>(values.size());
  by_name_[tensor.name] = measurements_.size();
  measurements_.push_back(std::move(measurement));
  row_ranges_.push_back(std::move(rows));
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
  measurement.alignment =
      AlignmentOf(row_ranges_[found->second], current_.row_squares);
  const NodeFacts& facts = current_.facts;
  measurement.reuse = facts.channels > 0 ? facts.taps : 1;
  measurement.positions =
      facts.channels > 0 ? measurement.tensor.num_elements / facts.channels : 0;
}

GradientMeter::NodeFacts GradientMeter::FactsOf(
    const torch::autograd::Node& node) {
  using torch::autograd::generated::ConvolutionBackward0;
  const auto* const convolution =
      dynamic_cast<const ConvolutionBackward0*>(&node);
  // The weight's, of [outputs, inputs / groups, kernel...].
  if (convolution == nullptr || !node.next_edge(1).is_valid()) return {};
  const torch::autograd::Edge& weight = node.next_edge(1);
  const std::vector<c10::SymInt> shape =
      weight.function->input_metadata(weight.input_nr)
          .shape_as_dim_vector()
          .vec();
  const int64_t groups = convolution->groups.expect_int();
  NodeFacts facts;
  facts.taps = 1 / static_cast<double>(groups);
  for (size_t i = 2; i < shape.size(); ++i) {
    facts.taps *= static_cast<double>(shape[i].expect_int());
  }
  facts.channels = shape[1].expect_int() * groups;
  if (convolution->transposed) {
    // [inputs, outputs / groups, kernel...]; as many positions more come out.
    facts.channels = shape[0].expect_int();
    for (const c10::SymInt& stride : convolution->stride) {
      facts.taps /= static_cast<double>(stride.expect_int());
    }
  }
  return facts;
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
    node->add_pre_hook(std::make_unique<GradientWatch>(
        this, OperatorName(node->name()), FactsOf(*node)));
    for (const torch::autograd::Edge& edge : node->next_edges()) {
      open.push_back(edge.function);
    }
  }
}

std::vector<SavedMeasurement> GradientMeter::Take() {
  by_name_.clear();
  row_ranges_.clear();
  return std::exchange(measurements_, {});
}

}  // namespace deltapipe
