#include "worker/collective/node_reduce.h"

#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "worker/collective/excluded_ranges.h"
#include "worker/collective/ring_all_reduce.h"

namespace deltapipe {
namespace {

/// Replaces this rank's part of a bucket, summed over its node, by its mean
/// over all ranks. Returns what there is to gather, but in fp32.
absl::StatusOr<std::vector<uint8_t>> Cross(const NodeReduceRequest& request,
                                           const SyncBucket& own_part,
                                           TwoPhaseAllReduce* reduce,
                                           NodeHierarchy* hierarchy,
                                           absl::Span<float> part,
                                           std::vector<uint8_t>* woken) {
  std::vector<uint8_t> packed;
  // Sums all the way, divided once: as exact as around one ring.
  if (reduce == nullptr) {
    DP_RETURN_IF_ERROR(
        RingAllReduce(hierarchy->across(), request.num_ranks, part));
    return packed;
  }
  const float ranks_in_node = static_cast<float>(hierarchy->ranks_in_node());
  for (float& value : part) value /= ranks_in_node;
  const ExcludedInBucket excluded = ExcludedIn(own_part, request.excluded);
  DP_RETURN_IF_ERROR(reduce->Run(request.step, part, excluded.ranges,
                                 request.drops_residuals));
  for (size_t i = 0; i < excluded.origins.size(); ++i) {
    if (reduce->woken()[i] != 0) (*woken)[excluded.origins[i]] = 1;
  }
  reduce->WriteResult(&packed);
  return packed;
}

}  // namespace

absl::Status ReduceByNodes(const NodeReduceRequest& request,
                           NodeHierarchy* hierarchy, absl::Span<float> values,
                           std::vector<uint8_t>* woken) {
  const absl::Span<const SyncBucket> buckets = request.buckets;
  woken->assign(request.excluded.size(), 0);
  std::vector<std::vector<uint8_t>> packed(buckets.size());
  std::vector<float> part;
  for (size_t i = 0; i < buckets.size(); ++i) {
    DP_RETURN_IF_ERROR(request.await_ready(buckets[i]));
    DP_RETURN_IF_ERROR(hierarchy->ReduceInNode(buckets[i], values, &part));
    const SyncBucket own_part = hierarchy->OwnPart(buckets[i]);
    DP_ASSIGN_OR_RETURN(
        packed[i], Cross(request, own_part, request.reduce_of(i), hierarchy,
                         absl::MakeSpan(part), woken));
    CopyIn(own_part, part, values);
  }
  for (size_t i = 0; i < buckets.size(); ++i) {
    TwoPhaseAllReduce* const reduce = request.reduce_of(i);
    DP_RETURN_IF_ERROR(
        reduce == nullptr ? hierarchy->GatherInNode(buckets[i], values)
                          : hierarchy->GatherPacked(
                                buckets[i], packed[i], reduce, request.excluded,
                                values, absl::MakeSpan(*woken)));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
