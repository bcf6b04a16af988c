// ReduceByNodes: the mean of a vector over ranks that share nodes, bucket by
// bucket: each is summed in the node and crosses to the other nodes as soon as
// its values are there; when all have crossed, they are gathered in the node.
//
// GradientSync calls it, from its thread. It keeps nothing between two calls;
// residuals are those of the TwoPhaseAllReduce that it is given.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_NODE_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_NODE_REDUCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/collective/node_hierarchy.h"
#include "worker/collective/sync_buckets.h"
#include "worker/collective/two_phase_all_reduce.h"

namespace deltapipe {

struct NodeReduceRequest {
  uint32_t step = 0;
  int num_ranks = 1;  // of all nodes
  /// Of the vector, together all of it.
  absl::Span<const SyncBucket> buckets;
  /// Returns once a bucket's values are there, or why they never will be.
  std::function<absl::Status(const SyncBucket& bucket)> await_ready;
  /// What a bucket crosses with; null: the fp32 ring, for all of them.
  std::function<TwoPhaseAllReduce*(size_t bucket)> reduce_of;
  /// As of TwoPhaseAllReduce::Run, but of the whole vector.
  absl::Span<const ElementRange> excluded;
  bool drops_residuals = false;
};

/// Replaces `values` by their mean; on an error, which is that of an exchange,
/// they hold anything. `hierarchy` has begun the transaction. `woken` gets a
/// flag for each excluded range, whether some rank had a value there.
absl::Status ReduceByNodes(const NodeReduceRequest& request,
                           NodeHierarchy* hierarchy, absl::Span<float> values,
                           std::vector<uint8_t>* woken);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_NODE_REDUCE_H_
