// ActivationStash: what waits in memory for the backward passes of a stage.
//
// Every tensor that autograd saves while a Scope is open on the thread passes
// through: it is recognised (tensor_class.h), kept as it is or packed as the
// policy says, and shared with all other saves of the same elements. Entries
// live as long as the graph holds them, so that a finished or an abandoned
// micro-batch leaves nothing behind. Any number of micro-batches may be in
// flight and end in any order: an entry has all that it needs to be unpacked.
//
//   ActivationStash stash(std::move(policy), seed);
//   stash.SetWeights({flat_weights});
//   { ActivationStash::Scope scope(&stash, {step, stage, microbatch, key});
//     output = model->Forward(input); }
//   ...
//   loss.backward();                   // unpacks
//
// Forward passes are run by one thread at a time; backward passes may unpack on
// any thread. Errors are thrown as SavedActivationError, through autograd, and
// carry a Status that names operator, tensor, stage and micro-batch.
//
// What is packed is a copy of its moment: a later change in place does not
// reach it, and its gradient is right. What is kept as it is was not copied:
// its change is an error when it is unpacked, as it is without hooks.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_ACTIVATION_STASH_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_ACTIVATION_STASH_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compression/bit_plan/saved_policy.h"
#include "worker/saved_activations/gradient_meter.h"
#include "worker/saved_activations/hook_engine.h"
#include "worker/saved_activations/live_counter.h"
#include "worker/saved_activations/saved_activation_error.h"
#include "worker/saved_activations/saved_bytes.h"

namespace deltapipe {

/// Which forward pass saves. Random bits depend on the seed, the tensor's name,
/// the step and `key`, which is of the micro-batch's samples; the others are
/// for errors.
struct SavedContext {
  int64_t step = 0;
  int stage = 0;
  int microbatch = 0;
  uint64_t key = 0;
};

class StashState;
class TensorPacker;

class ActivationStash : private HookSource {
 public:
  /// How to keep a tensor that may be packed.
  using Treatment = std::function<SavedTreatment(const SavedTensor&)>;

  /// Packs on the host, or by `packer` where that is.
  ActivationStash(std::unique_ptr<SavedPolicy> policy, uint64_t seed);
  ActivationStash(std::unique_ptr<SavedPolicy> policy, uint64_t seed,
                  std::unique_ptr<TensorPacker> packer);
  ~ActivationStash();

  /// Storages of parameters and buffers: never packed, never counted.
  void SetWeights(const std::vector<at::Tensor>& weights);

  /// `tensor`, which no gradient flows through or which autograd takes for a
  /// leaf, is an input of the model: an activation. Holds until the next call.
  void SetInput(const at::Tensor& tensor);

  /// As SetInput, of values that somebody keeps anyway: saves of it store
  /// nothing, and `read`, from any thread, fills in the same values again. Only
  /// SetInput where tensors are on a device.
  void SetHeldInput(const at::Tensor& tensor,
                    std::function<absl::Status(absl::Span<float>)> read);

  /// Also what the loss head saves: to show what that does, in tests.
  void PackHeadForTest();

  SavedPolicy* policy() { return policy_.get(); }
  /// From the next forward pass on.
  void SetPolicy(std::unique_ptr<SavedPolicy> policy);

  /// Told of what may be packed, and of its reads, while not null. Kept tensors
  /// then are read through their entries like packed ones.
  void SetMeter(GradientMeter* meter);

  /// What codecs with a memory keep from one forward pass to the next, by
  /// tensor.
  using Memories = std::map<std::string, std::vector<float>>;
  const Memories& memories() const;
  void SetMemories(Memories memories);

  /// Bytes alive: packed, passed and metadata. 0 when no graph is held. Handles
  /// of what is kept as it is are not counted, as LibTorch's are not.
  int64_t live_bytes() const;
  /// Whether the tensor's storage is kept as it is at the moment.
  bool KeepsStorageOf(const at::Tensor& tensor) const;
  /// Since the last call.
  SavedBytes TakeBytes();

  /// The backward pass of a micro-batch begins: what was offloaded of it comes
  /// back to the device, as memory is given back.
  void Prefetch(const SavedContext& context);
  /// At the end of a step: counts tensors that were found not to be finite on
  /// the device, for which it waits. DATA_LOSS if a payload was damaged there.
  absl::Status ReadDevice();

  /// Tensors of the last forward pass that came through the hooks, weights and
  /// what is shared too; for the thread that runs forward passes.
  int64_t num_saves() const;
  /// The tensors of the last forward pass.
  std::vector<SavedTensorReport> LastForward() const;

  /// The stash whose scope is the innermost of this thread, with hooks that are
  /// on: what operators that can do with less than the tensor that they would
  /// save ask before they save it. Null where nothing is packed.
  static ActivationStash* Current();

  /// Whether the operator that reads `input` shall keep its own result. Asks
  /// `can` last, which may be slow: whether it can do with it.
  bool TakesOutputOf(const at::Tensor& input, const std::function<bool()>& can);

  /// What was kept, of the sizes of the input, in fp32; from any thread, any
  /// number of times. Its bytes live as long as it does.
  using Derivative = std::function<at::Tensor()>;
  /// Keeps the operator's derivative at `input` in the place of `input`: what
  /// `compute` returns, in fp32 and of as many elements, packed as the
  /// treatment says and counted as an entry that stands for `input`. Null if
  /// the operator shall save its input: because the treatment says so, it is
  /// kept already, or values are not finite.
  Derivative KeepDerivative(const at::Tensor& input,
                            const std::function<at::Tensor()>& compute);

  class Scope {
   public:
    /// `treatment`, if not null, is asked in place of the policy.
    Scope(ActivationStash* stash, const SavedContext& context,
          Treatment treatment = nullptr);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    ActivationStash* const stash_;
    ActivationStash* const outer_;
    HookSourceScope hooks_;
  };

  /// Around the forward pass of layers that are computed again just before
  /// their backward pass. What that saves is kept as it is, and counts in the
  /// peak of live bytes and as `recomputed_peak`, nowhere else.
  class RecomputeScope {
   public:
    explicit RecomputeScope(ActivationStash* stash);
    ~RecomputeScope();
    RecomputeScope(const RecomputeScope&) = delete;
    RecomputeScope& operator=(const RecomputeScope&) = delete;

   private:
    ActivationStash* const stash_;
    LiveCounter counter_;
    HookSourceScope hooks_;
  };

 private:
  std::unique_ptr<torch::autograd::SavedVariableHooks> MakeHooks() override;

  std::unique_ptr<SavedPolicy> policy_;
  // Entries hold it, too: they may outlive the stash.
  std::shared_ptr<StashState> state_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_ACTIVATION_STASH_H_
