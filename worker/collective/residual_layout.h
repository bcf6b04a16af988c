// What error feedback owes: where it lies, and how it passes to another number
// of ranks, or to a vector that is cut otherwise.
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
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// Where a rank's residuals lie in the vector.
struct ResidualPlace {
  ElementRange worker;
  /// One behind the other: a shard, or one of each bucket.
  std::vector<ElementRange> server;
  int num_averaged = 1;  // ranks whose workers cover the same range
};

/// Of what a rank compresses as a worker (the whole vector, or its slice), and
/// of the shards that it averages. Empty before the first compressed
/// transaction.
struct SyncResiduals {
  std::vector<float> worker;
  std::vector<float> server;
  /// ResidualPlace::server of these; empty: of a vector that is not cut into
  /// buckets.
  std::vector<ElementRange> server_ranges;
};

/// Of a GradientSync with these nodes (GradientSyncOptions::nodes) whose vector
/// is not cut into buckets. INVALID_ARGUMENT as GradientSync::Create.
absl::StatusOr<ResidualPlace> PlaceOfResiduals(int64_t num_elements,
                                               absl::Span<const int> nodes,
                                               int num_ranks, int rank);

/// R [num_elements], in double summed rank by rank, from the residuals of all
/// ranks; empty if none of them has any. INVALID_ARGUMENT names the rank whose
/// residuals do not fit.
absl::StatusOr<std::vector<float>> FoldResiduals(
    int64_t num_elements, absl::Span<const int> nodes,
    absl::Span<const SyncResiduals> by_rank);

/// What the rank whose residuals lie in `place` is given, so that R is `owed`;
/// empty for an empty one.
SyncResiduals SpreadResiduals(absl::Span<const float> owed,
                              const ResidualPlace& place);

/// `residuals` as residuals that lie in `place`. Of servers of other ranges
/// they are added to the worker's, num_averaged times, which keeps R.
/// `server_rank` is this rank's place among those whose workers cover the same
/// range. INVALID_ARGUMENT if that cannot be.
absl::StatusOr<SyncResiduals> FitResiduals(const SyncResiduals& residuals,
                                           int server_rank,
                                           const ResidualPlace& place);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_RESIDUAL_LAYOUT_H_
