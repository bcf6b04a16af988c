// What a rank needs to know to forecast a two-phase transaction
// (gradient_sync.h) in a format that does not travel now: how long a codec
// takes, and how long a message without content does. Tried out, once, before
// training.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_SYNC_PROBE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_SYNC_PROBE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "worker/collective/rank_group.h"

namespace deltapipe {

struct SyncCost {
  /// Of a message, scales included.
  double bits_per_element = 0;
  /// Of encoding, decoding and averaging what one rank does of a transaction.
  double kernel_seconds = 0;
};

/// The least of five tries on 2^18 values, or as many as there are, with error
/// feedback. INVALID_ARGUMENT for a text that names no codec.
absl::StatusOr<SyncCost> ProbeSyncCost(const std::string& codec,
                                       int64_t num_elements, int num_ranks);

/// One way, in seconds: the fastest of eight exchanges in lockstep, which all
/// ranks take part in with the same step and phase.
absl::StatusOr<double> MeasureLatency(RankGroup* group, uint32_t step,
                                      uint32_t phase, Deadline deadline);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_SYNC_PROBE_H_
