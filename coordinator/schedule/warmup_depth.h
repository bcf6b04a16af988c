// The warm-up depth of 1F1B (and 2BW) that `schedule: auto` stands for.
//
// On slow links plain 1F1B waits for gradients even while its links are idle; a
// deeper warm-up hides the round trip at the price of saved activations. The
// simulator tries the depths that fit and takes the smallest one whose step
// time is within 0.5 % of the best; to hold more than half of the micro-batches
// in flight, though, it must gain 10 % over the best that holds no more than
// half.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_WARMUP_DEPTH_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_WARMUP_DEPTH_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/schedule/simulate.h"

namespace deltapipe {

struct DepthChoice {
  int warmup_depth = 0;
  double step_seconds = 0;
  /// Of plain 1F1B, whether it fits the limits or not.
  double plain_step_seconds = 0;
  /// Some depth was not tried because of in_flight_limits.
  bool is_limited = false;
};

/// `in_flight_limits`: the most micro-batches each stage may hold, at least 1
/// each. `schedule` is a row that takes a depth. Deterministic.
absl::StatusOr<DepthChoice> ChooseWarmupDepth(
    Schedule schedule, const PipelineShape& shape, const PipelineModel& model,
    const std::vector<int64_t>& in_flight_limits);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_WARMUP_DEPTH_H_
