// What the saved activations of a stage take, before and after
// compression.saved_activations has packed them.
//
// Worked out from what the layers were measured to save (LayerProfile.saved),
// by class, for one micro-batch.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_MEMORY_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_MEMORY_H_

#include <cstdint>
#include <vector>

#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct SavedMemory {
  int stage = 0;
  /// Micro-batches whose activations are held at once, at most.
  int in_flight = 0;
  /// Per micro-batch: as autograd saves it, each element once, and what is kept
  /// of it.
  int64_t raw_bytes = 0;
  int64_t stored_bytes = 0;
  /// Of one micro-batch, on top of what is kept of all: the largest group of
  /// layers that policy recompute computes again before their backward pass.
  int64_t recomputed_bytes = 0;
  /// The same by class, those with the largest raw bytes first.
  std::vector<v1::SavedClass> classes;
};

/// Whether the spec has a policy other than none.
bool PacksSavedActivations(const v1::JobSpec& spec);

/// Of layers [first_layer, end_layer), stage and in_flight left open. Layers
/// that were not measured by class are class "estimated" with the same bytes
/// before and after. Policy auto(budget) bounds what a stage keeps, while each
/// layer was measured with the whole budget: what is packed is cut down to it
/// (and shared out by SetInFlight). Policy recompute(every) keeps the inputs of
/// groups, while each layer was measured with its own.
SavedMemory SavedMemoryOf(const v1::JobSpec& spec,
                          const v1::StageProfile& profile, int first_layer,
                          int end_layer);

/// Sets in_flight. The budget of policy auto is of all of them and of what is
/// never packed: each keeps its share, packed less if that is more than it
/// took when it was measured.
void SetInFlight(const v1::JobSpec& spec, int in_flight, SavedMemory* memory);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_MEMORY_H_
