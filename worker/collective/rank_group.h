// RankGroup: ranks that talk to each other over frame channels, one per pair.
//
// The replicas of a stage form one group (gradients), the stages of a replica
// another (norms, verdicts). Borrows its channels. One collective at a time.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_RANK_GROUP_H_
#define DELTAPIPE_WORKER_COLLECTIVE_RANK_GROUP_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "worker/transport/frame_channel.h"

namespace deltapipe {

class RankGroup {
 public:
  /// `channels[i]` leads to rank i of the group; null at `rank`.
  RankGroup(int rank, std::vector<FrameChannel*> channels)
      : rank_(rank), channels_(std::move(channels)) {}

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(channels_.size()); }
  FrameChannel* channel(int rank) const {
    return channels_[static_cast<size_t>(rank)];
  }
  /// "rank 2 (10.77.0.2:41233 (job-7/g1/gradients/0-2))".
  std::string Describe(int rank) const;
  /// Makes every blocked and later call on the channels return `reason`.
  void Cancel(const absl::Status& reason) {
    for (FrameChannel* channel : channels_) {
      if (channel != nullptr) channel->Cancel(reason);
    }
  }

  /// Every rank's `mine`, in rank order, on every rank (all must give the same
  /// number of values). One message to each peer; kScalar frames. Errors name
  /// the peer and the step.
  absl::StatusOr<std::vector<std::vector<double>>> AllGather(
      uint32_t step, uint32_t phase, absl::Span<const double> mine,
      Deadline deadline);

 private:
  const int rank_;
  const std::vector<FrameChannel*> channels_;
};

/// For AllGather: a 64-bit hash as two numbers below 2^32, and so exact.
inline void AppendHash(uint64_t hash, std::vector<double>* values) {
  values->push_back(static_cast<double>(hash >> 32));
  values->push_back(static_cast<double>(hash & 0xFFFFFFFFu));
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_RANK_GROUP_H_
