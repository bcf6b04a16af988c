// LiveCounter: counts the memory of what a forward pass saves, and keeps it as
// it is; for layers that are computed again just before their backward pass.
//
//   LiveCounter counter(is_known);
//   { HookSourceScope scope(&counter); ... forward ... }
//   counter.bytes();   // what the graph keeps alive beyond what is known
//
// Used on one thread; what it made may be read on any, and outlive it.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_LIVE_COUNTER_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_LIVE_COUNTER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_set>
#include <utility>

#include "ATen/core/Tensor.h"
#include "worker/saved_activations/hook_engine.h"

namespace deltapipe {

class LiveCounter final : public HookSource {
 public:
  /// `is_known` of storages that are not counted: they are there in any case.
  explicit LiveCounter(std::function<bool(const at::Tensor&)> is_known)
      : is_known_(std::move(is_known)) {}

  /// Of the storages saved so far, each once.
  int64_t bytes() const { return bytes_; }

  std::unique_ptr<torch::autograd::SavedVariableHooks> MakeHooks() override;

 private:
  class Hooks;

  void Count(const at::Tensor& tensor);

  const std::function<bool(const at::Tensor&)> is_known_;
  std::unordered_set<const c10::StorageImpl*> seen_;
  int64_t bytes_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_LIVE_COUNTER_H_
