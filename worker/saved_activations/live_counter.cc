#include "worker/saved_activations/live_counter.h"

#include "ATen/core/grad_mode.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/saved_activations/saved_activation_error.h"

namespace deltapipe {

/// One save of one tensor.
class LiveCounter::Hooks : public torch::autograd::SavedVariableHooks {
 public:
  explicit Hooks(LiveCounter* counter) : counter_(counter) {}

  void call_pack_hook(const at::Tensor& tensor) override {
    at::NoGradGuard no_grad;
    counter_->Count(tensor);
    kept_ = tensor.detach();
    version_ = tensor._version();
  }

  at::Tensor call_unpack_hook() override {
    if (kept_._version() != version_) {
      throw SavedActivationError(absl::FailedPreconditionError(absl::StrCat(
          "a tensor of sizes [", absl::StrJoin(kept_.sizes(), ","),
          "] of a layer that was computed again was changed in place after it "
          "was saved, so that its gradient would be wrong: change a copy of it "
          "in the model")));
    }
    return kept_;
  }

 private:
  LiveCounter* const counter_;  // while packing
  at::Tensor kept_;
  uint32_t version_ = 0;
};

void LiveCounter::Count(const at::Tensor& tensor) {
  if (!tensor.has_storage() || is_known_(tensor)) return;
  if (seen_.insert(tensor.storage().unsafeGetStorageImpl()).second) {
    bytes_ += static_cast<int64_t>(tensor.storage().nbytes());
  }
}

std::unique_ptr<torch::autograd::SavedVariableHooks> LiveCounter::MakeHooks() {
  return std::make_unique<Hooks>(this);
}

}  // namespace deltapipe
