// SyncMeasure: what a worker tells of its gradients' transactions, from which
// the coordinator forecasts whether compressing them helps.
//
// Costs of codecs and latency are tried out once, before training; bytes and
// rates are those of the channels, from one transaction to the next.
// Note and Take are called by one thread at a time.
#ifndef DELTAPIPE_WORKER_ENGINE_SYNC_MEASURE_H_
#define DELTAPIPE_WORKER_ENGINE_SYNC_MEASURE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/collective/rank_group.h"

namespace deltapipe {

struct SyncMeasureOptions {
  std::string plan_codec;
  int64_t num_elements = 0;
  /// GradientSync::num_buckets.
  int num_buckets = 1;
  /// The node of each rank.
  std::vector<int> nodes;
};

class SyncMeasure {
 public:
  /// All ranks take part, through `scalars`, with the same step and phase.
  /// `gradients` is borrowed.
  static absl::StatusOr<std::unique_ptr<SyncMeasure>> Create(
      const SyncMeasureOptions& options, RankGroup* scalars,
      const RankGroup* gradients, uint32_t step, uint32_t phase,
      Deadline deadline);

  /// After every transaction; only those in the compressed form are counted.
  /// `early_seconds` of it went by beside a backward pass.
  void Note(bool is_compressed, double early_seconds);

  /// What was counted since the last call; no transactions: nothing was.
  v1::SyncReport Take();

 private:
  struct Traffic {
    int64_t bytes_sent = 0;
    double busy_seconds = 0;
  };

  explicit SyncMeasure(std::vector<const FrameChannel*> channels)
      : channels_(std::move(channels)), last_(channels_.size()) {}

  /// To ranks on other nodes.
  const std::vector<const FrameChannel*> channels_;
  std::vector<Traffic> last_;  // of each of them
  v1::SyncReport costs_;
  v1::SyncReport report_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_SYNC_MEASURE_H_
