// StageSaving: the saved activations of one stage: its stash, its policy and
// the probes that the policy is corrected by.
//
// A probe runs the forward and backward passes of one micro-batch again: with
// every tensor kept as it is, and once for each operator with its tensors
// packed alone. The relative distance of the gradients is that operator's
// error; above the limit its tensors are kept one level finer. Policies that
// plan are told what the passes measured before the next step.
//
//   saving->BeginForward(step);                       // Status
//   if (saving->ProbesNow()) ... keep the micro-batch's input ...
//   ... before its backward pass:
//   saving->Probe([&](const StageSaving::Pass& pass) { ...; return gradient;
//   });
//   ... after the last backward pass of a step: saving->EndStep();
//
// One thread, that of the stage. Throws what LibTorch throws.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_STAGE_SAVING_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_STAGE_SAVING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/saved_activations/activation_stash.h"
#include "worker/saved_activations/gradient_meter.h"
#include "worker/saved_activations/packed_tensor.h"
#include "worker/saved_activations/saved_activations.h"

namespace deltapipe {

struct StageSavingOptions {
  uint64_t seed = 0;
  std::string device = "cpu";
  /// Steps between probes of the error by operator; 0: none.
  int64_t probe_every = 500;
  double error_limit = 0.5;
  /// Null: that of the device. Tests pack by another one.
  std::function<absl::StatusOr<std::unique_ptr<TensorPacker>>()> make_packer;
};

class StageSaving : public SavedActivations {
 public:
  /// As SetPolicy.
  static absl::StatusOr<std::unique_ptr<StageSaving>> Create(
      const std::string& policy, const StageSavingOptions& options);

  /// Storages of parameters and buffers, and where in the flat gradient that a
  /// pass returns the parameters of each part of the model lie.
  struct PartRange {
    std::string part;
    int64_t offset = 0;
    int64_t num_elements = 0;
  };
  void SetWeights(const std::vector<at::Tensor>& weights,
                  std::vector<PartRange> ranges);

  /// Null while nothing is packed.
  ActivationStash* stash() { return stash_.get(); }
  int recompute_every() const;
  std::vector<std::string> RecomputedLayers() const;

  /// FAILED_PRECONDITION if tensors would be saved past the stash.
  absl::Status BeginForward(int64_t step);
  /// Whether the micro-batch whose forward begins is to be probed: the first
  /// one of a step that a probe is due in.
  bool ProbesNow() const { return probes_now_; }

  struct Pass {
    ActivationStash::Treatment treatment;
    /// Not null: watches the graph.
    GradientMeter* meter = nullptr;
    /// In place of the micro-batch's, for other random bits.
    uint64_t key_salt = 0;
    /// Not null: filled with the inputs of layers that can be computed again.
    std::vector<LayerInput>* inputs = nullptr;
  };
  /// Runs forward and backward of the micro-batch and returns the gradient of
  /// the stage's parameters, flat, in fp32.
  using RunPass = std::function<at::Tensor(const Pass& pass)>;
  void Probe(const RunPass& run);

  /// All backward passes of a step are done: what was measured is planned by.
  /// Errors of the policy: RESOURCE_EXHAUSTED if a budget is too small; of
  /// ActivationStash::ReadDevice.
  absl::Status EndStep();

  absl::Status SetPolicy(const std::string& text) override;
  absl::Status CheckPolicy(const std::string& text) const override;
  void SetInFlight(int microbatches) override {
    room_.in_flight = microbatches;
  }
  SavedBytes TakeBytes() override;
  int64_t live_bytes() const override;
  std::vector<SavedTensorReport> LastForward() const override;
  SavedFindings TakeFindings() override;
  void NoteNotFinite(int64_t step) override;
  std::string Save() const override;
  absl::Status Restore(absl::string_view state) override;

 private:
  explicit StageSaving(const StageSavingOptions& options) : options_(options) {}
  absl::StatusOr<std::unique_ptr<TensorPacker>> MakePacker() const;
  void RunPasses(const RunPass& run);
  void NoteRoom(const std::vector<LayerInput>& inputs);
  void ProbeOperators(const RunPass& run, const at::Tensor& exact);
  void MeasureOperators(const RunPass& run, const at::Tensor& exact);
  void MeasureTensors(const RunPass& run, const at::Tensor& exact);
  void Raise(const std::string& op, const std::string& why);

  const StageSavingOptions options_;
  std::vector<at::Tensor> weights_;
  std::vector<PartRange> ranges_;
  std::string text_ = "none";
  std::unique_ptr<ActivationStash> stash_;
  int64_t step_ = -1;
  bool probes_now_ = false;
  std::vector<SavedMeasurement> measurements_;
  SavedRoom room_;
  bool must_plan_ = false;
  SavedFindings findings_;
  SavedBytes counted_;  // before the last probe
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_STAGE_SAVING_H_
