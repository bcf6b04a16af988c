// LoopbackRanks: n ranks in one process, each pair joined by frame channels
// over the loopback transport, for experiments, tests and benchmarks of
// collectives.
//
//   DP_ASSIGN_OR_RETURN(LoopbackRanks ranks, LoopbackRanks::Create(3));
//   ranks.Run([&](int rank) { ... ranks.group(rank)->AllGather(...) ... });
#ifndef DELTAPIPE_WORKER_COLLECTIVE_LOOPBACK_RANKS_H_
#define DELTAPIPE_WORKER_COLLECTIVE_LOOPBACK_RANKS_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/collective/rank_group.h"
#include "worker/transport/channel.h"
#include "worker/transport/frame_channel.h"
#include "worker/transport/loopback/loopback_transport.h"

namespace deltapipe {

class LoopbackRanks {
 public:
  /// Errors are those of the channels, which name the pair of ranks.
  /// INVALID_ARGUMENT if num_ranks < 1.
  static absl::StatusOr<LoopbackRanks> Create(
      int num_ranks, const FrameChannelOptions& options = {});

  /// The same over other transports, one for each rank.
  static absl::StatusOr<LoopbackRanks> CreateOver(
      std::vector<std::unique_ptr<Transport>> transports,
      const FrameChannelOptions& options = {});

  int size() const { return static_cast<int>(groups_.size()); }
  /// Stays where it is when this object is moved.
  RankGroup* group(int rank) {
    return groups_[static_cast<size_t>(rank)].get();
  }

  /// Calls `body` for every rank, each on a thread of its own, and joins them.
  void Run(const std::function<void(int rank)>& body) const;

 private:
  LoopbackRanks() = default;
  absl::Status Connect(std::vector<std::unique_ptr<Transport>> transports,
                       const FrameChannelOptions& options);

  std::unique_ptr<LoopbackNetwork> network_ =
      std::make_unique<LoopbackNetwork>();
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::unique_ptr<FrameChannel>> channels_;
  std::vector<std::unique_ptr<RankGroup>> groups_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_LOOPBACK_RANKS_H_
