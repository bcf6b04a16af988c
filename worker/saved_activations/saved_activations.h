// SavedActivations: what a stage says about the tensors that wait for its
// backward passes, and how they are kept from now on. Free of Torch: the engine
// sees this much of it.
//
// Called between two steps, or by the thread that runs the stage.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_ACTIVATIONS_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_ACTIVATIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "worker/saved_activations/saved_bytes.h"

namespace deltapipe {

class SavedActivations {
 public:
  virtual ~SavedActivations() = default;

  /// In force from the next forward pass on; what is in flight is unpacked by
  /// what it was packed with. INVALID_ARGUMENT for an unknown policy,
  /// UNIMPLEMENTED for one that this device cannot do.
  virtual absl::Status SetPolicy(const std::string& text) = 0;
  /// What SetPolicy would return.
  virtual absl::Status CheckPolicy(const std::string& text) const = 0;

  /// How many micro-batches wait for their backward pass at a time, at most.
  virtual void SetInFlight(int microbatches) = 0;

  /// Since the last call; num_tensors is 0 while nothing is packed.
  virtual SavedBytes TakeBytes() = 0;
  /// Alive now; 0 when no micro-batch is in flight.
  virtual int64_t live_bytes() const = 0;
  /// The tensors of the last forward pass.
  virtual std::vector<SavedTensorReport> LastForward() const = 0;

  /// What was found and decided since the last call: probed errors by operator,
  /// and sentences on what became of the policy.
  virtual SavedFindings TakeFindings() = 0;
  /// The loss or the gradient of a step was not finite: all classes are kept
  /// one level finer.
  virtual void NoteNotFinite(int64_t step) = 0;

  /// What was measured and decided, for a checkpoint, and going on with it:
  /// with what the same policy had; another's is left out, as a finding.
  virtual std::string Save() const = 0;
  virtual absl::Status Restore(absl::string_view state) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_ACTIVATIONS_H_
