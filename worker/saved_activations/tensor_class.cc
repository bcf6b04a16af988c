#include "worker/saved_activations/tensor_class.h"

#include <cctype>
#include <cstring>

#include "absl/strings/match.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/functions/accumulate_grad.h"
#include "torch/csrc/autograd/variable.h"
#include "worker/saved_activations/saved_scope.h"

namespace deltapipe {
namespace {

// Copies and views of a weight are a few nodes away from it.
constexpr int kLongestChain = 8;

// Nodes whose result has the elements of what went in, in another shape or
// type.
bool IsViewOrCast(const std::string& name) {
  for (const char* prefix : {"ViewBackward",         "UnsafeViewBackward",
                             "ReshapeAliasBackward", "TBackward",
                             "TransposeBackward",    "PermuteBackward",
                             "SelectBackward",       "SliceBackward",
                             "SplitBackward",        "SplitWithSizesBackward",
                             "UnbindBackward",       "ExpandBackward",
                             "SqueezeBackward",      "UnsqueezeBackward",
                             "AsStridedBackward",    "AliasBackward",
                             "CloneBackward",        "ToCopyBackward",
                             "ContiguousBackward",   "NarrowBackward",
                             "ChunkBackward"}) {
    if (absl::StartsWith(name, prefix)) return true;
  }
  return false;
}

// Whether the tensor was made of a parameter alone, by nodes of one input each:
// a transposed weight, autocast's copy of it, a slice.
bool IsMadeOfWeight(const at::Tensor& tensor, const KnownTensors& known) {
  std::shared_ptr<torch::autograd::Node> owner = tensor.grad_fn();
  const torch::autograd::Node* node = owner.get();
  for (int i = 0; node != nullptr && i < kLongestChain; ++i) {
    const auto* leaf =
        dynamic_cast<const torch::autograd::AccumulateGrad*>(node);
    if (leaf != nullptr) {
      return known.weights.count(
                 leaf->variable.storage().unsafeGetStorageImpl()) > 0;
    }
    if (!IsViewOrCast(node->name()) || node->num_outputs() != 1) return false;
    node = node->next_edge(0).function.get();
  }
  return false;
}

}  // namespace

const char* TensorClassName(TensorClass tensor_class) {
  switch (tensor_class) {
    case TensorClass::kActivation:
      return "activation";
    case TensorClass::kRelu:
      return "relu";
    case TensorClass::kWeight:
      return "weight";
    case TensorClass::kInteger:
      return "integer";
    case TensorClass::kMask:
      return "mask";
    case TensorClass::kStatistic:
      return "statistic";
    case TensorClass::kHead:
      return "head";
    case TensorClass::kSmall:
      return "small";
    case TensorClass::kOther:
      return "other";
  }
  return "other";
}

TensorClass ClassOf(const at::Tensor& tensor, int64_t num_elements,
                    const KnownTensors& known) {
  const c10::StorageImpl* const storage =
      tensor.storage().unsafeGetStorageImpl();
  if (known.weights.count(storage) > 0) return TensorClass::kWeight;
  const at::ScalarType type = tensor.scalar_type();
  if (type == at::kBool) return TensorClass::kMask;
  if (at::isIntegralType(type, /*includeBool=*/false)) {
    return TensorClass::kInteger;
  }
  if (type != at::kFloat && type != at::kHalf && type != at::kBFloat16) {
    return TensorClass::kOther;
  }
  if (tensor.requires_grad() && IsMadeOfWeight(tensor, known)) {
    return TensorClass::kWeight;
  }
  const auto node = tensor.grad_fn();
  if (node == nullptr) {
    // A leaf that is neither weight nor input, or one that no gradient reaches.
    const bool is_input = known.inputs.count(storage) > 0 ||
                          SavedInput::Is(tensor.const_data_ptr());
    if (!is_input) return TensorClass::kStatistic;
  } else {
    const std::string name = node->name();
    if (absl::StartsWith(name, "LogSoftmaxBackward")) return TensorClass::kHead;
    // The later results of norms and of attention: means, deviations,
    // logsumexp.
    if (tensor.output_nr() > 0 && (absl::StrContains(name, "Norm") ||
                                   absl::StrContains(name, "Attention"))) {
      return TensorClass::kStatistic;
    }
  }
  if (num_elements < kSmallestPacked) return TensorClass::kSmall;
  const std::string op = OperatorOf(tensor);
  return op == "relu" || op == "dropped_relu" ? TensorClass::kRelu
                                              : TensorClass::kActivation;
}

std::string OperatorOf(const at::Tensor& tensor) {
  std::shared_ptr<torch::autograd::Node> owner = tensor.grad_fn();
  const torch::autograd::Node* node = owner.get();
  for (int i = 0; node != nullptr && i < kLongestChain; ++i) {
    const std::string name = node->name();
    if (!IsViewOrCast(name)) {
      const bool is_leaf =
          dynamic_cast<const torch::autograd::AccumulateGrad*>(node) != nullptr;
      return is_leaf ? "input" : OperatorName(name);
    }
    if (node->num_outputs() == 0) break;
    node = node->next_edge(0).function.get();
  }
  return "input";
}

std::string OperatorName(const std::string& node_name) {
  const size_t end = node_name.find("Backward");
  std::string word = node_name.substr(0, end);
  const size_t scope = word.rfind(':');  // C++ functions have qualified names
  if (scope != std::string::npos) word = word.substr(scope + 1);
  std::string name;
  for (size_t i = 0; i < word.size(); ++i) {
    const char c = word[i];
    if (std::isupper(static_cast<unsigned char>(c)) != 0) {
      if (i > 0) name += '_';
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else {
      name += c;
    }
  }
  return name.empty() ? "input" : name;
}

}  // namespace deltapipe
