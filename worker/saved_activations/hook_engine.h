// The autograd engine of this process, which asks a HookSource how each tensor
// that a forward pass saves is to be kept.
//
// LibTorch consults Engine::get_default_saved_variable_hooks() wherever it
// saves a tensor; Python's engine overrides it for its hooks, and ours does for
// C++ (torch/csrc/autograd/saved_variable.cpp). Without a source on the thread
// a tensor is saved as ever.
//
//   InstallHookEngine();                // once, before the first backward pass
//   HookSourceScope scope(&stash);      // around a forward pass, on its thread
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_HOOK_ENGINE_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_HOOK_ENGINE_H_

#include <memory>

#include "absl/status/status.h"
#include "torch/csrc/autograd/saved_variable_hooks.h"

namespace deltapipe {

class HookSource {
 public:
  virtual ~HookSource() = default;
  /// For one tensor that is about to be saved: its hooks, which live as long as
  /// the graph keeps it; null leaves it to LibTorch.
  virtual std::unique_ptr<torch::autograd::SavedVariableHooks> MakeHooks() = 0;
};

/// From any thread; again without effect.
void InstallHookEngine();

/// InstallHookEngine after somebody else's engine.
void ReinstallHookEngineForTest();

/// FAILED_PRECONDITION if another engine was installed since, by Python's torch
/// in this process for one, or if hooks are disabled on this thread: tensors
/// would be saved past the hooks.
absl::Status CheckHookEngine();
/// Of the latter.
absl::Status HooksAreDisabled();

/// Tensors saved by this thread ask `source`, which must outlive the scope.
/// Scopes nest, the innermost decides; null turns hooks off.
class HookSourceScope {
 public:
  explicit HookSourceScope(HookSource* source);
  ~HookSourceScope();
  HookSourceScope(const HookSourceScope&) = delete;
  HookSourceScope& operator=(const HookSourceScope&) = delete;

  /// Of the innermost scope of this thread; null without one.
  static HookSource* Current();

 private:
  HookSource* const outer_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_HOOK_ENGINE_H_
