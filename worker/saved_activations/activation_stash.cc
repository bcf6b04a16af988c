#include "worker/saved_activations/activation_stash.h"

#include <utility>

#include "ATen/core/grad_mode.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "torch/csrc/autograd/function.h"
#include "torch/csrc/autograd/saved_variable_hooks.h"
#include "worker/saved_activations/host_packer.h"
#include "worker/saved_activations/stash_state.h"
#include "worker/saved_activations/tensor_class.h"

namespace deltapipe {
namespace {

thread_local ActivationStash* current_stash = nullptr;

/// Neither weights nor what has no strides or no elements is kept track of.
bool IsTracked(const StashState& state, const at::Tensor& tensor) {
  return tensor.has_storage() && tensor.layout() == at::kStrided &&
         tensor.numel() > 0 && !state.IsWeight(tensor);
}

/// " of stage 1, step 3, micro-batch 2"
std::string Of(const SavedContext& context) {
  return absl::StrCat(" of stage ", context.stage, ", step ", context.step,
                      ", micro-batch ", context.microbatch);
}

/// One save of one tensor.
class StashHooks : public torch::autograd::SavedVariableHooks {
 public:
  explicit StashHooks(std::shared_ptr<StashState> state)
      : state_(std::move(state)) {}

  void call_pack_hook(const at::Tensor& tensor) override {
    at::NoGradGuard no_grad;
    HookSourceScope no_hooks(nullptr);
    ++state_->num_saves;
    if (!IsTracked(*state_, tensor)) {
      context_ = state_->context;
      exact_ = tensor.detach();
      version_ = tensor._version();
      return;
    }
    saved_ = state_->Pack(tensor);
  }

  at::Tensor call_unpack_hook() override {
    at::NoGradGuard no_grad;
    HookSourceScope no_hooks(nullptr);
    if (saved_.entry != nullptr) return state_->Unpack(saved_);
    if (exact_._version() != version_) {
      const auto node = torch::autograd::get_current_node();
      throw SavedActivationError(absl::FailedPreconditionError(absl::StrCat(
          "a weight (", c10::toString(exact_.scalar_type()), " [",
          absl::StrJoin(exact_.sizes(), ","), "])", Of(context_),
          node == nullptr ? "" : ", which " + OperatorName(node->name()),
          node == nullptr ? "" : " reads",
          ", was changed in place between forward and backward (version ",
          exact_._version(), ", saved as ", version_,
          "), so that gradients would be wrong: change weights after the "
          "step's last backward pass")));
    }
    return exact_;
  }

 private:
  const std::shared_ptr<StashState> state_;
  StashState::Saved saved_;
  // Of what is not kept track of.
  at::Tensor exact_;
  SavedContext context_;
  uint32_t version_ = 0;
};

}  // namespace

ActivationStash::ActivationStash(std::unique_ptr<SavedPolicy> policy,
                                 uint64_t seed)
    : ActivationStash(std::move(policy), seed, std::make_unique<HostPacker>()) {
}

ActivationStash::ActivationStash(std::unique_ptr<SavedPolicy> policy,
                                 uint64_t seed,
                                 std::unique_ptr<TensorPacker> packer)
    : policy_(std::move(policy)),
      state_(std::make_shared<StashState>(seed, std::move(packer))) {
  InstallHookEngine();
}

ActivationStash::~ActivationStash() = default;

void ActivationStash::SetWeights(const std::vector<at::Tensor>& weights) {
  state_->known.weights.clear();
  for (const at::Tensor& weight : weights) {
    state_->known.weights.insert(weight.storage().unsafeGetStorageImpl());
  }
}

void ActivationStash::SetInput(const at::Tensor& tensor) {
  state_->known.inputs = {tensor.storage().unsafeGetStorageImpl()};
  state_->held = nullptr;
  state_->read_held = nullptr;
}

void ActivationStash::SetHeldInput(
    const at::Tensor& tensor,
    std::function<absl::Status(absl::Span<float>)> read) {
  SetInput(tensor);
  state_->held = tensor.storage().unsafeGetStorageImpl();
  state_->read_held = std::move(read);
}

void ActivationStash::PackHeadForTest() { state_->packs_head = true; }

void ActivationStash::SetPolicy(std::unique_ptr<SavedPolicy> policy) {
  policy_ = std::move(policy);
}

void ActivationStash::SetMeter(GradientMeter* meter) { state_->meter = meter; }

const ActivationStash::Memories& ActivationStash::memories() const {
  return state_->memories;
}
void ActivationStash::SetMemories(Memories memories) {
  state_->memories = std::move(memories);
}

int64_t ActivationStash::live_bytes() const { return state_->live(); }
void ActivationStash::Prefetch(const SavedContext& context) {
  state_->Prefetch(context);
}
absl::Status ActivationStash::ReadDevice() { return state_->ReadDevice(); }
bool ActivationStash::KeepsStorageOf(const at::Tensor& tensor) const {
  return state_->KeepsStorageOf(tensor);
}

int64_t ActivationStash::num_saves() const { return state_->num_saves; }

SavedBytes ActivationStash::TakeBytes() { return state_->TakeBytes(); }
std::vector<SavedTensorReport> ActivationStash::LastForward() const {
  return state_->LastForward();
}

ActivationStash* ActivationStash::Current() {
  const bool is_on =
      current_stash != nullptr && HookSourceScope::Current() == current_stash;
  return is_on ? current_stash : nullptr;
}

bool ActivationStash::TakesOutputOf(const at::Tensor& input,
                                    const std::function<bool()>& can) {
  at::NoGradGuard no_grad;
  HookSourceScope no_hooks(nullptr);
  return IsTracked(*state_, input) && state_->TakesOutputOf(input, can);
}

ActivationStash::Derivative ActivationStash::KeepDerivative(
    const at::Tensor& input, const std::function<at::Tensor()>& compute) {
  at::NoGradGuard no_grad;
  HookSourceScope no_hooks(nullptr);
  if (!IsTracked(*state_, input)) return nullptr;
  std::shared_ptr<SavedEntry> entry = state_->KeepDerivative(input, compute);
  if (entry == nullptr) return nullptr;
  return
      [state = state_, entry = std::move(entry), sizes = input.sizes().vec()] {
        at::NoGradGuard no_grad;
        HookSourceScope no_hooks(nullptr);
        return state->UnpackDerivative(entry).view(sizes);
      };
}

std::unique_ptr<torch::autograd::SavedVariableHooks>
ActivationStash::MakeHooks() {
  return std::make_unique<StashHooks>(state_);
}

ActivationStash::Scope::Scope(ActivationStash* stash,
                              const SavedContext& context, Treatment treatment)
    : stash_(stash),
      outer_(std::exchange(current_stash, stash)),
      hooks_(stash) {
  stash_->state_->context = context;
  stash_->state_->treatment = treatment != nullptr
                                  ? std::move(treatment)
                                  : [stash](const SavedTensor& tensor) {
                                      return stash->policy_->Treat(tensor);
                                    };
  stash_->state_->BeginForward();
}

ActivationStash::Scope::~Scope() {
  stash_->state_->treatment = nullptr;
  current_stash = outer_;
}

ActivationStash::RecomputeScope::RecomputeScope(ActivationStash* stash)
    : stash_(stash),
      counter_([state = stash->state_.get()](const at::Tensor& tensor) {
        return state->IsWeight(tensor) || state->KeepsStorageOf(tensor);
      }),
      hooks_(&counter_) {}

ActivationStash::RecomputeScope::~RecomputeScope() {
  stash_->state_->NoteRecomputed(counter_.bytes());
}

}  // namespace deltapipe
