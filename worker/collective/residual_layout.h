// Where the residuals of each rank lie in the vector, and how what they owe
// passes to another number of ranks.
//
// What is owed to each element is R = mean of the workers' residuals over the
// ranks that average it + the residual of the server that owns it. Whatever
// keeps R changes nothing for the average trajectory. FoldResiduals computes it
// from all ranks; SpreadResiduals gives it to the servers of any other layout.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_RESIDUAL_LAYOUT_H_
#define DELTAPIPE_WORKER_COLLECTIVE_RESIDUAL_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/collective/gradient_sync.h"

namespace deltapipe {

struct ResidualPlace {
  ElementRange worker;  // of the vector
  ElementRange server;
  int num_averaged = 1;  // ranks whose workers cover the same range
};

/// Of a GradientSync with these nodes (GradientSyncOptions::nodes).
/// INVALID_ARGUMENT as GradientSync::Create.
absl::StatusOr<ResidualPlace> PlaceOfResiduals(int64_t num_elements,
                                               absl::Span<const int> nodes,
                                               int num_ranks, int rank);

/// R [num_elements], in double summed rank by rank, from the residuals of all
/// ranks; empty if none of them has any. INVALID_ARGUMENT names the rank whose
/// residuals do not fit.
absl::StatusOr<std::vector<float>> FoldResiduals(
    int64_t num_elements, absl::Span<const int> nodes,
    absl::Span<const SyncResiduals> by_rank);

/// What `rank` of a GradientSync with these nodes is given, so that R is
/// `owed`; empty for an empty one.
absl::StatusOr<SyncResiduals> SpreadResiduals(absl::Span<const float> owed,
                                              absl::Span<const int> nodes,
                                              int num_ranks, int rank);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_RESIDUAL_LAYOUT_H_
