#include "worker/collective/residual_layout.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/node_hierarchy.h"
#include "worker/collective/shards.h"

namespace deltapipe {
namespace {

int64_t SizeOf(const ElementRange& range) { return range.end - range.begin; }

int64_t SizeOf(absl::Span<const ElementRange> ranges) {
  int64_t size = 0;
  for (const ElementRange& range : ranges) size += SizeOf(range);
  return size;
}

ElementRange ShardOf(const ElementRange& vector, int num_ranks, int rank) {
  const Shards shards{SizeOf(vector), num_ranks};
  return {vector.begin + shards.offset(rank),
          vector.begin + shards.offset(rank + 1)};
}

/// That `residuals` lie in `place`.
absl::Status CheckPlace(const SyncResiduals& residuals,
                        const ResidualPlace& place) {
  for (const ElementRange& range : place.server) {
    if (range.begin < place.worker.begin || range.end < range.begin ||
        range.end > place.worker.end) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the server's elements ", range.begin, " to ", range.end,
          " are not among ", place.worker.begin, " to ", place.worker.end));
    }
  }
  const int64_t num_worker = SizeOf(place.worker);
  const int64_t num_server = SizeOf(place.server);
  if (static_cast<int64_t>(residuals.worker.size()) == num_worker &&
      static_cast<int64_t>(residuals.server.size()) == num_server) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(residuals.worker.size(), " and ", residuals.server.size(),
                   " values, expected ", num_worker, " and ", num_server));
}

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
      place.worker =
          ShardOf(place.worker, static_cast<int>(node.in_node.size()),
                  node.index_in_node);
      place.num_averaged = static_cast<int>(node.across.size());
      server = node.index_across;
    }
  }
  place.server = {ShardOf(place.worker, place.num_averaged, server)};
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
        ResidualPlace place,
        PlaceOfResiduals(num_elements, nodes, static_cast<int>(by_rank.size()),
                         static_cast<int>(rank)));
    if (!mine.server_ranges.empty()) place.server = mine.server_ranges;
    const absl::Status fits = CheckPlace(mine, place);
    if (!fits.ok()) {
      return Annotate(fits, absl::StrCat("residuals of rank ", rank, " of ",
                                         by_rank.size()));
    }
    double* const worker = owed.data() + place.worker.begin;
    for (size_t i = 0; i < mine.worker.size(); ++i) {
      worker[i] += double{mine.worker[i]} / place.num_averaged;
    }
    const float* server = mine.server.data();
    for (const ElementRange& range : place.server) {
      for (int64_t i = range.begin; i < range.end; ++i) {
        owed[static_cast<size_t>(i)] += double{*server++};
      }
    }
  }
  if (!is_any) return std::vector<float>();
  return std::vector<float>(owed.begin(), owed.end());
}

SyncResiduals SpreadResiduals(absl::Span<const float> owed,
                              const ResidualPlace& place) {
  if (owed.empty()) return SyncResiduals();
  SyncResiduals mine;
  mine.worker.resize(static_cast<size_t>(SizeOf(place.worker)));
  for (const ElementRange& range : place.server) {
    mine.server.insert(mine.server.end(), owed.begin() + range.begin,
                       owed.begin() + range.end);
  }
  mine.server_ranges = place.server;
  return mine;
}

absl::StatusOr<SyncResiduals> FitResiduals(const SyncResiduals& residuals,
                                           int server_rank,
                                           const ResidualPlace& place) {
  ResidualPlace from = place;
  if (!residuals.server_ranges.empty()) {
    from.server = residuals.server_ranges;
  } else {
    from.server = {ShardOf(place.worker, place.num_averaged, server_rank)};
  }
  DP_RETURN_IF_ERROR(Annotate(CheckPlace(residuals, from), "residuals"));
  SyncResiduals fitted = residuals;
  fitted.server_ranges = place.server;
  if (from.server == place.server) return fitted;
  const float* server = residuals.server.data();
  for (const ElementRange& range : from.server) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      fitted.worker[static_cast<size_t>(i - place.worker.begin)] +=
          static_cast<float>(place.num_averaged) * *server++;
    }
  }
  fitted.server.assign(static_cast<size_t>(SizeOf(place.server)), 0.0f);
  return fitted;
}

}  // namespace deltapipe
