// Cuts a chain of layers into contiguous stages of even cost.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_PARTITION_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_PARTITION_H_

#include <vector>

#include "absl/status/statusor.h"

namespace deltapipe {

/// The ends of `num_stages` stages: stage r has layers [ends[r-1], ends[r]).
/// Every stage has a layer; the largest stage cost is as small as possible, and
/// of those cuts the most even one (least sum of squared costs) is taken. If
/// all costs are 0, layers are counted instead. Exact and deterministic.
/// INVALID_ARGUMENT if there are more stages than layers, no stages, or a cost
/// is negative or not finite.
absl::StatusOr<std::vector<int>> PartitionLayers(
    const std::vector<double>& layer_costs, int num_stages);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_PARTITION_H_
