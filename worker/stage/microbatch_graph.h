// MicrobatchGraph: what a forward pass of a model leaves for the backward pass.
//
// Holds the graph by its last node and not by its result, and its input not at
// all, so that nothing stays in memory but what autograd saves (which passes
// through the stash, if there is one). Parts of the model can be computed anew
// in the backward pass, in groups, of which their inputs alone are kept. That
// is exact: what dropout keeps is a function of a counter
// (operators/dropout_draw.h).
//
//   MicrobatchGraph graph(options);
//   at::Tensor output = graph.Forward(input);
//   ...
//   at::Tensor input_gradient = graph.Backward(output_gradient);   // once
//
// One thread at a time. Errors are LibTorch's exceptions and
// SavedActivationError.
#ifndef DELTAPIPE_WORKER_STAGE_MICROBATCH_GRAPH_H_
#define DELTAPIPE_WORKER_STAGE_MICROBATCH_GRAPH_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "torch/csrc/autograd/edge.h"
#include "torch/csrc/autograd/saved_variable.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/stage/models/model.h"
#include "worker/stage/operators/dropout_draw.h"

namespace deltapipe {

/// Takes the place of a leaf: a graph's input, whose gradient it holds later,
/// without holding the input.
struct InputNode;

struct MicrobatchGraphOptions {
  PartialModel* model = nullptr;
  const std::vector<std::string>* part_names = nullptr;
  /// Null: nothing is dropped. The graph's nodes share it.
  std::shared_ptr<const DropoutDraw> dropout;
  /// Null: autograd keeps what it saves as it is.
  ActivationStash* stash = nullptr;
  SavedContext context;
  ActivationStash::Treatment treatment;  // null: the policy's
  /// Not null: watches the backward pass. Needs recompute_every = 0.
  GradientMeter* meter = nullptr;
  /// Parts of the model, but for embedding and head, that are computed anew
  /// together; 0: none.
  int recompute_every = 0;
  /// Parts that are computed anew by themselves, where recompute_every is 0;
  /// embedding and head are not.
  std::vector<std::string> recomputed_parts;
  /// Of InputOperators, so that what is saved is called as it is without
  /// recomputed_parts; may be null where there are none.
  const std::vector<std::string>* input_operators = nullptr;
  /// Not null: filled in by Forward with the parts that may be computed anew,
  /// and what each one's input takes.
  std::vector<LayerInput>* inputs = nullptr;
  /// What layers compute in: the input is cast to it.
  at::ScalarType type = at::kFloat;
  bool needs_input_gradient = false;
  /// As TensorRef::read_again of the input, which then is in `type` already;
  /// may be null.
  std::function<absl::Status(absl::Span<float>)> read_input;
  /// Not null: called by Backward before it differentiates the parts from
  /// `first_part` on that it has not yet.
  std::function<void(int first_part)> before_segment;
  /// After the last part: the loss. Null: none.
  std::function<at::Tensor(const at::Tensor&)> finish;
};

/// By part, the operator that computes its input, as OperatorOf says; found by
/// a forward pass of `input`.
std::vector<std::string> InputOperators(PartialModel* model,
                                        const at::Tensor& input);

class MicrobatchGraph {
 public:
  explicit MicrobatchGraph(MicrobatchGraphOptions options);

  /// The result, without a graph.
  at::Tensor Forward(const at::Tensor& input);

  /// Adds to the gradients of the parameters. Returns that of the input, if it
  /// was asked for, in the input's type.
  at::Tensor Backward(const at::Tensor& gradient);

  /// Sizes of the result.
  at::IntArrayRef output_sizes() const { return output_sizes_; }

 private:
  struct Segment {
    int first_part = 0;
    int end_part = 0;
    bool is_recomputed = false;
    torch::autograd::SavedVariable input;  // is_recomputed
    torch::autograd::Edge root;            // else
    std::shared_ptr<InputNode> node;       // else, where there is a gradient
  };

  void Cut();
  /// Tells the stash what the segment's input is.
  void TellInput(const Segment& segment, const at::Tensor& input);
  /// "saved activations of stage 1, step 3, micro-batch 2: "
  std::string Place() const;
  /// Throws FAILED_PRECONDITION if `part` left them disabled: what comes then
  /// is saved past the stash.
  void CheckHooksAreEnabled(const std::string& part) const;
  /// Throws INTERNAL if nothing of the forward pass came through the hooks.
  void CheckHooksWereAsked() const;
  std::string InputOperator(const Segment& segment) const;
  bool HasGradient(const Segment& segment) const;
  /// Runs a segment with a graph, and leaves its root and node.
  at::Tensor Run(Segment* segment, const at::Tensor& input);
  at::Tensor RunParts(const Segment& segment, const at::Tensor& input);
  /// Whether the stash keeps it as it is; asked only for `inputs`.
  bool IsSaved(const at::Tensor& tensor) const;

  MicrobatchGraphOptions options_;
  std::vector<Segment> segments_;
  std::vector<int64_t> output_sizes_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_MICROBATCH_GRAPH_H_
