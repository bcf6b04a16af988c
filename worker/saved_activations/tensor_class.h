// What a tensor that autograd saves is, and so whether it may be compressed.
//
// Weights, whole numbers, statistics, random state and what the loss head saves
// are kept as they are; masks become bits; the rest is for the policy. Nothing
// here reads the tensor's values.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TENSOR_CLASS_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TENSOR_CLASS_H_

#include <string>
#include <unordered_set>

#include "ATen/core/Tensor.h"

namespace deltapipe {

enum class TensorClass {
  kActivation,  // may be compressed
  kRelu,        // may be compressed; zeros are restored exactly
  kWeight,      // a parameter or buffer, a view of one, or a copy made of one
  kInteger,     // token ids, targets, indices, state of random generators
  kMask,        // bool
  kStatistic,   // means, deviations, sums: what no gradient flows through
  kHead,        // what the loss and its last matrix save, log-softmax results
  kSmall,       // not worth it
  kOther,       // complex, 64-bit floats, floats of 8 bits
};

/// "activation", "weight", ...
const char* TensorClassName(TensorClass tensor_class);

/// What is known before the tensor comes.
struct KnownTensors {
  /// Storages of parameters and buffers.
  std::unordered_set<const c10::StorageImpl*> weights;
  /// Storages of what was put into the model and no gradient flows through,
  /// images for one: activations all the same.
  std::unordered_set<const c10::StorageImpl*> inputs;
};

/// Fewer elements are kSmall.
inline constexpr int64_t kSmallestPacked = 1024;

/// `tensor`, strided, as it gets to the pack hook; `num_elements` of it are
/// different ones (not broadcast). Whether a scope SavedAsTheyAre is open is
/// for the caller to know.
TensorClass ClassOf(const at::Tensor& tensor, int64_t num_elements,
                    const KnownTensors& known);

/// The operator that computed it, seen through views and casts: "gelu",
/// "addmm", "native_layer_norm"; "input" if none did.
std::string OperatorOf(const at::Tensor& tensor);

/// "AddmmBackward0" -> "addmm".
std::string OperatorName(const std::string& node_name);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_TENSOR_CLASS_H_
