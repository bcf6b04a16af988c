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
  /// On top of what is kept of all micro-batches, the most by which layers that
  /// are computed again before their backward pass take more than what their
  /// micro-batch has given back by then: what it kept for the head and for
  /// later layers.
  int64_t recomputed_bytes = 0;
  /// Per micro-batch, in host memory and no part of stored_bytes: as measured,
  /// or, with policy auto(budget,offload), what SetInFlight finds.
  int64_t host_bytes = 0;
  /// The same by class, those with the largest raw bytes first.
  std::vector<v1::SavedClass> classes;
  /// Policy auto(budget,slowdown): with no layer computed again, one, two, and
  /// so on, what the classes that are packed take were all else kept as it is,
  /// less the other classes of these layers; recomputed_bytes, which are part
  /// of the budget; and the class metadata that these layers do without.
  struct Exact {
    int64_t packed_bytes = 0;
    int64_t on_top = 0;
    int64_t metadata = 0;
  };
  std::vector<Exact> exact;
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

/// Sets in_flight. The budget of policy auto is of all of them, of what is
/// never packed and of the layer that is just computed again: each keeps its
/// share, packed less if that is more than it took when it was measured. Where
/// nothing need be packed once few enough layers are computed again, it is what
/// these leave; else the whole budget.
void SetInFlight(const v1::JobSpec& spec, int in_flight, SavedMemory* memory);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_SAVED_MEMORY_H_
