// What a plan sends, in bytes, and how long its links take for gradients.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_PREDICT_TRAFFIC_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_PREDICT_TRAFFIC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
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

/// The bytes of each boundary, per step of one replica. `activations` and
/// `gradients` are boundary codecs, resolved.
absl::StatusOr<std::vector<v1::LinkPlan>> PredictBoundaries(
    const std::vector<StageCost>& stages, const std::string& activations,
    const std::string& gradients, int microbatch_samples, int num_microbatches);

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

/// What the job's optimizer does, before and after compression sets in; the
/// same twice for an optimizer that never compresses.
struct StageSync {
  SyncTraffic plain;
  SyncTraffic compressed;
};
/// `parameters` are those that no other stage holds.
absl::StatusOr<StageSync> PredictSync(const v1::JobSpec& spec,
                                      const std::string& gradient_codec,
                                      int64_t parameters);
/// Of what each of `num_stages` stages holds: one group of all their replicas,
/// none of which share a node or state. Nothing for fewer than two stages.
absl::StatusOr<StageSync> PredictTiedSync(const v1::JobSpec& spec,
                                          const std::string& gradient_codec,
                                          int64_t tied_parameters,
                                          int num_stages);
/// Of a stage as a whole: one after the other.
absl::StatusOr<StageSync> PredictStageSync(const v1::JobSpec& spec,
                                           const std::string& gradient_codec,
                                           int64_t parameters,
                                           int64_t tied_parameters,
                                           int num_tied_stages);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_PREDICT_TRAFFIC_H_
