#include "worker/collective/residual_layout.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/node_hierarchy.h"
#include "worker/collective/shards.h"

namespace deltapipe {
namespace {

int64_t SizeOf(const ElementRange& range) { return range.end - range.begin; }

}  // namespace

absl::StatusOr<ResidualPlace> PlaceOfResiduals(int64_t num_elements,
                                               absl::Span<const int> nodes,
                                               int num_ranks, int rank) {
  ResidualPlace place;
  place.worker = {0, num_elements};
  place.num_averaged = num_ranks;
  int server = rank;
  if (!nodes.empty()) {
    DP_ASSIGN_OR_RETURN(const NodePlace node,
                        PlaceAmongNodes(nodes, num_ranks, rank));
    if (node.is_nested()) {
      const Shards slices{num_elements, static_cast<int>(node.in_node.size())};
      place.worker = {slices.offset(node.index_in_node),
                      slices.offset(node.index_in_node + 1)};
      place.num_averaged = static_cast<int>(node.across.size());
      server = node.index_across;
    }
  }
  const Shards shards{SizeOf(place.worker), place.num_averaged};
  place.server = {place.worker.begin + shards.offset(server),
                  place.worker.begin + shards.offset(server + 1)};
  return place;
}

absl::StatusOr<std::vector<float>> FoldResiduals(
    int64_t num_elements, absl::Span<const int> nodes,
    absl::Span<const SyncResiduals> by_rank) {
  std::vector<double> owed(static_cast<size_t>(num_elements));
  bool is_any = false;
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    const SyncResiduals& mine = by_rank[rank];
    if (mine.worker.empty() && mine.server.empty()) continue;
    is_any = true;
    DP_ASSIGN_OR_RETURN(
        const ResidualPlace place,
        PlaceOfResiduals(num_elements, nodes, static_cast<int>(by_rank.size()),
                         static_cast<int>(rank)));
    if (static_cast<int64_t>(mine.worker.size()) != SizeOf(place.worker) ||
        static_cast<int64_t>(mine.server.size()) != SizeOf(place.server)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "residuals of rank ", rank, " of ", by_rank.size(), ": ",
          mine.worker.size(), " and ", mine.server.size(), " values, expected ",
          SizeOf(place.worker), " and ", SizeOf(place.server)));
    }
    double* const worker = owed.data() + place.worker.begin;
    for (size_t i = 0; i < mine.worker.size(); ++i) {
      worker[i] += double{mine.worker[i]} / place.num_averaged;
    }
    double* const server = owed.data() + place.server.begin;
    for (size_t i = 0; i < mine.server.size(); ++i) {
      server[i] += double{mine.server[i]};
    }
  }
  if (!is_any) return std::vector<float>();
  return std::vector<float>(owed.begin(), owed.end());
}

absl::StatusOr<SyncResiduals> SpreadResiduals(absl::Span<const float> owed,
                                              absl::Span<const int> nodes,
                                              int num_ranks, int rank) {
  if (owed.empty()) return SyncResiduals();
  DP_ASSIGN_OR_RETURN(const ResidualPlace place,
                      PlaceOfResiduals(static_cast<int64_t>(owed.size()), nodes,
                                       num_ranks, rank));
  SyncResiduals mine;
  mine.worker.resize(static_cast<size_t>(SizeOf(place.worker)));
  mine.server.assign(owed.begin() + place.server.begin,
                     owed.begin() + place.server.end);
  return mine;
}

}  // namespace deltapipe
