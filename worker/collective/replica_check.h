// CheckReplicas: whether all ranks of a group hold the same weights, bit for
// bit, tensor by tensor.
//
// Called by all ranks at the same synchronisation point, every so many steps:
//
//   DP_RETURN_IF_ERROR(
//       CheckReplicas(group, step, phase, layout, weights, deadline));
#ifndef DELTAPIPE_WORKER_COLLECTIVE_REPLICA_CHECK_H_
#define DELTAPIPE_WORKER_COLLECTIVE_REPLICA_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "worker/collective/rank_group.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// Exchanges a checksum of each segment of `weights` (layout.num_elements). All
/// ranks come to the same verdict. DATA_LOSS names every differing tensor (the
/// first 8) and the ranks, in groups that agree, the largest group first; the
/// errors of AllGather.
absl::Status CheckReplicas(RankGroup* group, uint32_t step, uint32_t phase,
                           const ParameterLayout& layout,
                           absl::Span<const float> weights, Deadline deadline);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_REPLICA_CHECK_H_
