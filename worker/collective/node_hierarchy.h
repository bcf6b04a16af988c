// NodeHierarchy: ranks of a group that share nodes, for an all-reduce that
// crosses the network between nodes once a node, not once a rank.
//
// With g ranks on each of m nodes a vector is cut into g slices. ReduceInNode
// sums each slice on one rank of every node; the m ranks with the same index in
// their nodes reduce their slice among themselves, by whatever means
// (across()); GatherInNode spreads the slices inside the node again, in fp32,
// and GatherPacked as they came over the network. A node then sends 2 (m - 1) /
// m of the vector in the codec's bits, where a flat exchange in two phases
// sends g (n - g) / n + g (n - 1) / n of it.
//
// All of it goes bucket by bucket (sync_buckets.h): what a bucket has of each
// slice, which may be nothing. Slices are those of the vector, however it is
// cut into buckets, and so are the residuals of what crosses.
//
//   of each bucket: ReduceInNode; among across(); into the vector
//   of each bucket: GatherInNode or GatherPacked
//
// Ranks without a part of a bucket go on with the next; so nothing is gathered
// before all has crossed.
//
// Used by one thread, as GroupExchange.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_NODE_HIERARCHY_H_
#define DELTAPIPE_WORKER_COLLECTIVE_NODE_HIERARCHY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/shard_compressor.h"
#include "worker/collective/shards.h"
#include "worker/collective/sync_buckets.h"
#include "worker/collective/two_phase_all_reduce.h"

namespace deltapipe {

/// The place of a rank among nodes that hold equally many ranks each.
struct NodePlace {
  std::vector<int> in_node;  // ranks of its node, in order
  std::vector<int> across;   // ranks of its index in their nodes, by node
  int index_in_node = 0;
  int index_across = 0;

  /// Whether there are two levels: several nodes with several ranks each.
  bool is_nested() const { return in_node.size() > 1 && across.size() > 1; }
};

/// `nodes`: the node of each rank, any numbers. INVALID_ARGUMENT if nodes hold
/// different numbers of ranks, or if there are not as many entries as ranks.
absl::StatusOr<NodePlace> PlaceAmongNodes(absl::Span<const int> nodes,
                                          int num_ranks, int rank);

class NodeHierarchy {
 public:
  struct Options {
    uint64_t generation = 1;
    int64_t max_message_bytes = int64_t{16} << 20;
    int64_t num_elements = 0;
  };

  /// `group` and its channels are borrowed. `compressor`, without feedback, is
  /// for ReduceInNode.
  NodeHierarchy(const Options& options, const NodePlace& place,
                RankGroup* group, std::unique_ptr<ShardCompressor> compressor);

  int ranks_in_node() const { return slices_.num_ranks; }
  int num_nodes() const { return static_cast<int>(place_.across.size()); }

  /// Starts a transaction, as GroupExchange::Begin.
  void Begin(uint32_t step, uint32_t codec_hash);
  /// Of the vector.
  ElementRange slice_range() const { return SliceRange(place_.index_in_node); }
  /// What a bucket of the vector has of this rank's slice.
  SyncBucket OwnPart(const SyncBucket& bucket) const {
    return PartOfSlice(bucket, place_.index_in_node);
  }
  /// Sums OwnPart of the vector `values` over the node, to `sum`, in its order.
  absl::Status ReduceInNode(const SyncBucket& bucket,
                            absl::Span<const float> values,
                            std::vector<float>* sum);
  /// Fills what a bucket has of the other slices in the vector `values`; its
  /// own is there.
  absl::Status GatherInNode(const SyncBucket& bucket, absl::Span<float> values);
  /// The same of what crossed packed: `packed` is what a TwoPhaseAllReduce such
  /// as `reduced` wrote of OwnPart, and what travels. `flags` get what is known
  /// of the `excluded` ranges of the vector.
  absl::Status GatherPacked(const SyncBucket& bucket, ByteSpan packed,
                            TwoPhaseAllReduce* reduced,
                            absl::Span<const ElementRange> excluded,
                            absl::Span<float> values,
                            absl::Span<uint8_t> flags);

  /// Among the ranks with this index in their nodes.
  GroupExchange* across() { return &across_; }
  /// What is going on, as GroupExchange::activity. Callable from any thread.
  std::string activity() const;
  /// Sent inside the node.
  int64_t in_node_bytes() const { return in_node_.payload_bytes(); }

 private:
  ElementRange SliceRange(int index) const {
    return {slices_.offset(index), slices_.offset(index + 1)};
  }
  SyncBucket PartOfSlice(const SyncBucket& bucket, int index) const;
  /// Of a bucket, by index in the node.
  std::vector<SyncBucket> Parts(const SyncBucket& bucket) const;
  /// Sends `mine` to all of the node, if this rank has a part, and takes what
  /// the others have, of at most `most_bytes(elements)`.
  absl::Status Gather(
      const std::vector<SyncBucket>& parts, ByteSpan mine,
      const std::function<int64_t(int64_t num_elements)>& most_bytes,
      const std::function<absl::Status(int index, ByteSpan bytes)>& take);

  const NodePlace place_;
  const Shards slices_;
  RankGroup in_node_group_;
  RankGroup across_group_;
  GroupExchange in_node_;
  GroupExchange across_;
  const std::unique_ptr<ShardCompressor> compressor_;
  std::vector<std::vector<uint8_t>> messages_;  // by index in the node
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_NODE_HIERARCHY_H_
