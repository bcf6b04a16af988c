#include "worker/saved_activations/hook_engine.h"

#include <utility>

#include "ATen/SavedTensorHooks.h"
#include "absl/strings/str_cat.h"
#include "torch/csrc/autograd/engine.h"

namespace deltapipe {
namespace {

thread_local HookSource* current_source = nullptr;

class HookEngine : public torch::autograd::Engine {
 public:
  // Never destroyed: device threads of the engine may outlive main.
  static torch::autograd::Engine& Get() {
    static HookEngine* const engine = new HookEngine;
    return *engine;
  }

  std::unique_ptr<torch::autograd::SavedVariableHooks>
  get_default_saved_variable_hooks() override {
    return current_source == nullptr ? nullptr : current_source->MakeHooks();
  }
};

}  // namespace

void InstallHookEngine() {
  static const bool is_installed = [] {
    torch::autograd::set_default_engine_stub(&HookEngine::Get);
    return true;
  }();
  static_cast<void>(is_installed);
}

void ReinstallHookEngineForTest() {
  torch::autograd::set_default_engine_stub(&HookEngine::Get);
}

absl::Status HooksAreDisabled() {
  return absl::FailedPreconditionError(absl::StrCat(
      "compression.saved_activations: saved-variable hooks are disabled on "
      "this "
      "thread (\"",
      at::SavedTensorDefaultHooks::get_disabled_error_message().value_or(""),
      "\"), so that saved tensors would not be packed: enable them around the "
      "forward pass, or use saved_activations: none"));
}

absl::Status CheckHookEngine() {
  if (!at::SavedTensorDefaultHooks::is_enabled()) return HooksAreDisabled();
  if (&torch::autograd::Engine::get_default_engine() == &HookEngine::Get()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "compression.saved_activations: another autograd engine was installed in "
      "this process (Python's torch brings its own), so that saved tensors "
      "would not be packed: use saved_activations: none, or keep Python out of "
      "the worker");
}

HookSourceScope::HookSourceScope(HookSource* source)
    : outer_(std::exchange(current_source, source)) {}
HookSourceScope::~HookSourceScope() { current_source = outer_; }

HookSource* HookSourceScope::Current() { return current_source; }

}  // namespace deltapipe
