// What a plan sends, in bytes and in seconds of its links.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_PREDICT_TRAFFIC_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_PREDICT_TRAFFIC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/schedule/simulate.h"
#include "coordinator/schedule/stage_costs.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// Frame header and framing of one message, rounded up.
inline constexpr double kFrameBytes = 100;

/// A link between two workers as the planner knows it.
struct LinkFacts {
  double bits_per_second = 0;  // 0 is unlimited
  double latency_seconds = 0;
};

/// network.emulate where it says something, else network.expected.
absl::StatusOr<LinkFacts> LinkFactsOf(const v1::NetworkSpec& network);

/// Fills the bytes of each boundary's LinkPlan for a step of one replica, and
/// each boundary's model for the simulator. `activations` and `gradients` are
/// boundary codecs, resolved.
struct BoundaryTraffic {
  std::vector<v1::LinkPlan> plans;
  std::vector<LinkModel> models;
};
absl::StatusOr<BoundaryTraffic> PredictBoundaries(
    const std::vector<StageCost>& stages, const LinkFacts& link,
    const std::string& activations, const std::string& gradients,
    int microbatch_samples, int num_microbatches);

/// Synchronisation of one stage's gradients: what a rank sends per step, and
/// how long the links take.
struct SyncTraffic {
  double bytes = 0;
  double seconds = 0;
};
/// A ring all-reduce with `bytes_per_parameter` (4, or 2 for bf16).
SyncTraffic PredictPlainSync(int64_t parameters, int num_replicas,
                             double bytes_per_parameter, const LinkFacts& link);
/// The two phases of 1-bit LAMB through `codec`, a stateless codec or
/// "identity". INVALID_ARGUMENT if it is none.
absl::StatusOr<SyncTraffic> PredictCompressedSync(int64_t parameters,
                                                  int num_replicas,
                                                  const std::string& codec,
                                                  const LinkFacts& link);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_PREDICT_TRAFFIC_H_
