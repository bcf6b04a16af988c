#include "worker/stage/microbatch_graph.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "ATen/SavedTensorHooks.h"
#include "ATen/core/grad_mode.h"
#include "absl/strings/str_cat.h"
#include "torch/csrc/autograd/engine.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/functions/utils.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/saved_activations/saved_scope.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {

struct InputNode : public torch::autograd::Node {
  explicit InputNode(const std::string& op) : name_(op + "Backward0") {}
  // Lists of saved tensors show it as the operator that computed it, or as
  // "input".
  std::string name() const override { return name_; }
  torch::autograd::variable_list apply(
      torch::autograd::variable_list&& gradients) override {
    gradient = gradients[0];
    return {};
  }
  at::Tensor gradient;

 private:
  const std::string name_;
};

MicrobatchGraph::MicrobatchGraph(MicrobatchGraphOptions options)
    : options_(std::move(options)) {
  Cut();
}

void MicrobatchGraph::Cut() {
  const std::vector<std::string>& names = *options_.part_names;
  const int num_parts = static_cast<int>(names.size());
  int part = 0;
  const auto add = [&](int end, bool is_recomputed) {
    if (end == part) return;
    segments_.emplace_back();
    segments_.back().first_part = part;
    segments_.back().end_part = end;
    segments_.back().is_recomputed = is_recomputed;
    part = end;
  };
  // The head's forward would be done again at once, the embedding's result is
  // the first group's input.
  const int first_layer = names.front() == "embedding" ? 1 : 0;
  const int end_layers = names.back() == "head" ? num_parts - 1 : num_parts;
  if (options_.recompute_every > 0) {
    add(first_layer, false);
    while (part < end_layers) {
      add(std::min(part + options_.recompute_every, end_layers), true);
    }
  }
  const std::vector<std::string>& again = options_.recomputed_parts;
  for (int layer = std::max(part, first_layer); layer < end_layers; ++layer) {
    const std::string& name = names[static_cast<size_t>(layer)];
    if (std::find(again.begin(), again.end(), name) == again.end()) continue;
    add(layer, false);
    add(layer + 1, true);
  }
  add(num_parts, false);
}

bool MicrobatchGraph::HasGradient(const Segment& segment) const {
  return segment.first_part > 0 || options_.needs_input_gradient;
}

bool MicrobatchGraph::IsSaved(const at::Tensor& tensor) const {
  return options_.inputs != nullptr && options_.stash != nullptr &&
         options_.stash->KeepsStorageOf(tensor);
}

at::Tensor MicrobatchGraph::RunParts(const Segment& segment,
                                     const at::Tensor& input) {
  DropoutScope dropout(options_.dropout);
  at::Tensor value = input;
  const bool is_first = segment.first_part == 0;
  if (is_first && at::isFloatingType(value.scalar_type())) {
    value = value.to(options_.type);
  }
  for (int part = segment.first_part; part < segment.end_part; ++part) {
    const std::string& name = (*options_.part_names)[static_cast<size_t>(part)];
    SavedPart scope(name);
    const at::Tensor part_input = value;
    const bool was_saved = IsSaved(part_input);
    value = options_.model->ForwardPart(part, value);
    CheckHooksAreEnabled(name);
    if (options_.inputs != nullptr && name != "embedding" && name != "head") {
      options_.inputs->push_back({name,
                                  static_cast<int64_t>(part_input.nbytes()),
                                  !was_saved && IsSaved(part_input)});
    }
  }
  const bool is_last =
      segment.end_part == static_cast<int>(options_.part_names->size());
  if (is_last && options_.finish != nullptr) {
    SavedPart scope("loss");
    SavedAsTheyAre as_they_are("the loss");
    value = options_.finish(value);
  }
  return value;
}

std::string MicrobatchGraph::InputOperator(const Segment& segment) const {
  const std::vector<std::string>* const operators = options_.input_operators;
  return segment.first_part == 0 || operators == nullptr
             ? "input"
             : (*operators)[static_cast<size_t>(segment.first_part)];
}

std::vector<std::string> InputOperators(PartialModel* model,
                                        const at::Tensor& input) {
  at::AutoGradMode with_graph(true);
  HookSourceScope no_hooks(nullptr);
  at::Tensor value = input;
  if (at::isFloatingType(input.scalar_type())) value.requires_grad_(true);
  std::vector<std::string> operators;
  for (size_t part = 0; part < model->PartNames().size(); ++part) {
    operators.push_back(OperatorOf(value));
    value = model->ForwardPart(static_cast<int>(part), value);
  }
  return operators;
}

void MicrobatchGraph::TellInput(const Segment& segment,
                                const at::Tensor& input) {
  if (options_.stash == nullptr) return;
  if (segment.first_part == 0 && options_.read_input != nullptr) {
    options_.stash->SetHeldInput(input, options_.read_input);
  } else {
    options_.stash->SetInput(input);
  }
}

at::Tensor MicrobatchGraph::Run(Segment* segment, const at::Tensor& input) {
  at::AutoGradMode with_graph(true);
  at::Tensor value = input.detach();
  if (HasGradient(*segment)) {
    segment->node = std::make_shared<InputNode>(InputOperator(*segment));
    torch::autograd::set_history(value, segment->node);
  }
  TellInput(*segment, value);
  const at::Tensor result = RunParts(*segment, value);
  segment->root = torch::autograd::impl::gradient_edge(result);
  return result.detach();
}

std::string MicrobatchGraph::Place() const {
  const SavedContext& context = options_.context;
  return absl::StrCat("saved activations of stage ", context.stage, ", step ",
                      context.step, ", micro-batch ", context.microbatch, ": ");
}

void MicrobatchGraph::CheckHooksAreEnabled(const std::string& part) const {
  if (options_.stash == nullptr || at::SavedTensorDefaultHooks::is_enabled()) {
    return;
  }
  throw SavedActivationError(absl::FailedPreconditionError(absl::StrCat(
      Place(), "after ", part, ": ", HooksAreDisabled().message())));
}

void MicrobatchGraph::CheckHooksWereAsked() const {
  if (options_.stash == nullptr || options_.stash->num_saves() > 0) return;
  const bool has_graph =
      std::any_of(segments_.begin(), segments_.end(),
                  [](const Segment& one) { return one.root.is_valid(); });
  if (!has_graph) return;
  throw SavedActivationError(absl::InternalError(absl::StrCat(
      Place(), "the forward pass of ", options_.part_names->front(), " to ",
      options_.part_names->back(),
      " saved no tensor through the hooks, so that nothing was packed: a layer "
      "turns them off (HookSourceScope), or another engine is in this process; "
      "take that out, or use compression.saved_activations: none")));
}

at::Tensor MicrobatchGraph::Forward(const at::Tensor& input) {
  std::optional<ActivationStash::Scope> scope;
  if (options_.stash != nullptr) {
    scope.emplace(options_.stash, options_.context, options_.treatment);
    options_.stash->SetMeter(options_.meter);
  }
  at::Tensor value = input;
  for (Segment& segment : segments_) {
    if (!segment.is_recomputed) {
      value = Run(&segment, value);
      continue;
    }
    at::NoGradGuard without_graph;
    const at::Tensor kept = value.detach();
    TellInput(segment, kept);
    SavedPart part(
        (*options_.part_names)[static_cast<size_t>(segment.first_part)]);
    segment.input = torch::autograd::SavedVariable(kept, /*is_output=*/false);
    value = RunParts(segment, value);
  }
  CheckHooksWereAsked();
  if (options_.meter != nullptr) options_.meter->Watch(segments_[0].root);
  output_sizes_ = value.sizes().vec();
  options_.finish = nullptr;
  return value;
}

at::Tensor MicrobatchGraph::Backward(const at::Tensor& gradient) {
  if (options_.stash != nullptr) options_.stash->Prefetch(options_.context);
  at::Tensor incoming = gradient;
  for (auto segment = segments_.rbegin(); segment != segments_.rend();
       ++segment) {
    if (segment->is_recomputed) {
      // What is computed anew is used at once: nothing of it is packed.
      HookSourceScope no_hooks(nullptr);
      const at::Tensor input = segment->input.unpack();
      ActivationStash* const stash = std::exchange(options_.stash, nullptr);
      std::optional<ActivationStash::RecomputeScope> scope;
      if (stash != nullptr) scope.emplace(stash);
      Run(&*segment, input);
      scope.reset();
      segment->input.reset_data();
      options_.stash = stash;
    }
    // Pixels that became numbers: no parameter is before them.
    if (!segment->root.is_valid()) {
      incoming = at::Tensor();
      break;
    }
    if (options_.before_segment) options_.before_segment(segment->first_part);
    torch::autograd::Engine::get_default_engine().execute(
        {std::exchange(segment->root, {})}, {incoming}, /*keep_graph=*/false,
        /*create_graph=*/false, /*accumulate_grad=*/true);
    incoming = segment->node == nullptr
                   ? at::Tensor()
                   : std::exchange(segment->node->gradient, at::Tensor());
    segment->node.reset();
  }
  if (options_.stash != nullptr) options_.stash->SetMeter(nullptr);
  return incoming;
}

}  // namespace deltapipe
