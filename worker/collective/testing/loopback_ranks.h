// LoopbackRanks: n ranks in one process, each pair joined by frame channels
// over the loopback transport, for tests and benchmarks of collectives.
//
//   LoopbackRanks ranks(3);
//   ranks.Run([&](int rank) { ... ranks.group(rank)->AllGather(...) ... });
#ifndef DELTAPIPE_WORKER_COLLECTIVE_TESTING_LOOPBACK_RANKS_H_
#define DELTAPIPE_WORKER_COLLECTIVE_TESTING_LOOPBACK_RANKS_H_

#include <functional>
#include <memory>
#include <vector>

#include "worker/collective/rank_group.h"
#include "worker/transport/frame_channel.h"
#include "worker/transport/loopback/loopback_transport.h"

namespace deltapipe {

class LoopbackRanks {
 public:
  /// Ends the test program if the channels cannot be made.
  explicit LoopbackRanks(int num_ranks,
                         const FrameChannelOptions& options = {});

  int size() const { return static_cast<int>(groups_.size()); }
  RankGroup* group(int rank) {
    return groups_[static_cast<size_t>(rank)].get();
  }

  /// Calls `body` for every rank, each on a thread of its own, and joins them.
  void Run(const std::function<void(int rank)>& body) const;

 private:
  LoopbackNetwork network_;
  std::vector<std::unique_ptr<FrameChannel>> channels_;
  std::vector<std::unique_ptr<RankGroup>> groups_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_TESTING_LOOPBACK_RANKS_H_
