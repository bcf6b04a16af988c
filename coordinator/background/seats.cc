#include "coordinator/background/seats.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace deltapipe {
namespace {

/// Ranks that count as one node: replicas [first, first + size) of a stage.
struct NodeGroup {
  int stage = 0;
  int first_replica = 0;
  std::vector<int> ranks;
};

/// In the order in which they are seated; none where every replica is a node of
/// its own, or all are of one, as gradients then travel without regard to them.
std::vector<NodeGroup> NodeGroups(const v1::ParallelSpec& parallel) {
  std::vector<NodeGroup> groups;
  const int nodes = parallel.nodes();
  const int replicas = parallel.replicas();
  if (nodes <= 1 || nodes >= replicas || replicas % nodes != 0) return groups;
  const int size = replicas / nodes;
  for (int first = 0; first < replicas; first += size) {
    for (int stage = 0; stage < parallel.stages(); ++stage) {
      NodeGroup group;
      group.stage = stage;
      group.first_replica = first;
      for (int i = 0; i < size; ++i) {
        group.ranks.push_back(stage * replicas + first + i);
      }
      groups.push_back(std::move(group));
    }
  }
  return groups;
}

class Seating {
 public:
  /// Seats those who had a rank before.
  Seating(std::vector<WorkerInfo> workers,
          const std::map<std::string, int>& former_ranks)
      : seats_(workers.size()) {
    for (WorkerInfo& worker : workers) {
      const auto former = former_ranks.find(worker.id);
      if (former == former_ranks.end()) {
        standing_.push_back(std::move(worker));
      } else {
        seats_[static_cast<size_t>(former->second)] = std::move(worker);
      }
    }
  }

  bool HasMembers(const NodeGroup& group) const {
    return std::any_of(group.ranks.begin(), group.ranks.end(), [&](int rank) {
      return seats_[static_cast<size_t>(rank)].has_value();
    });
  }

  /// Fills the group's free seats from one host: that of its members, or
  /// without members the first one with enough workers standing. Otherwise
  /// leaves them free.
  void SeatTogether(const NodeGroup& group) {
    std::vector<int> free;
    std::string host;
    for (const int rank : group.ranks) {
      const std::optional<WorkerInfo>& seat = seats_[static_cast<size_t>(rank)];
      if (!seat.has_value()) {
        free.push_back(rank);
      } else {
        host = seat->host;
      }
    }
    if (free.size() == group.ranks.size()) host = HostOf(free.size());
    for (const int rank : free) {
      const auto worker =
          std::find_if(standing_.begin(), standing_.end(),
                       [&](const WorkerInfo& one) { return one.host == host; });
      if (worker == standing_.end()) return;
      seats_[static_cast<size_t>(rank)] = std::move(*worker);
      standing_.erase(worker);
    }
  }

  /// Seats the others in their order.
  std::vector<WorkerInfo> Finish() {
    auto next = standing_.begin();
    std::vector<WorkerInfo> seated;
    for (std::optional<WorkerInfo>& seat : seats_) {
      seated.push_back(seat.has_value() ? *std::move(seat)
                                        : std::move(*next++));
    }
    return seated;
  }

 private:
  /// The first host of which `count` workers stand; empty if there is none.
  std::string HostOf(size_t count) const {
    std::map<std::string, size_t> num_standing;
    for (const WorkerInfo& worker : standing_) ++num_standing[worker.host];
    for (const WorkerInfo& worker : standing_) {
      if (num_standing[worker.host] >= count) return worker.host;
    }
    return "";
  }

  std::vector<std::optional<WorkerInfo>> seats_;  // by rank
  std::vector<WorkerInfo> standing_;              // in their order
};

}  // namespace

std::vector<WorkerInfo> SeatWorkers(
    const v1::ParallelSpec& parallel, std::vector<WorkerInfo> workers,
    const std::map<std::string, int>& former_ranks) {
  Seating seating(std::move(workers), former_ranks);
  const std::vector<NodeGroup> groups = NodeGroups(parallel);
  // Whoever has members already takes its host's workers before others do.
  for (const NodeGroup& group : groups) {
    if (seating.HasMembers(group)) seating.SeatTogether(group);
  }
  for (const NodeGroup& group : groups) {
    if (!seating.HasMembers(group)) seating.SeatTogether(group);
  }
  return seating.Finish();
}

std::string DescribeSplitNodes(const v1::ParallelSpec& parallel,
                               const std::vector<WorkerInfo>& workers_by_rank) {
  for (const NodeGroup& group : NodeGroups(parallel)) {
    std::vector<std::string> hosts;
    for (const int rank : group.ranks) {
      const std::string& host = workers_by_rank[static_cast<size_t>(rank)].host;
      if (std::find(hosts.begin(), hosts.end(), host) == hosts.end()) {
        hosts.push_back(host);
      }
    }
    if (hosts.size() == 1) continue;
    const size_t size = group.ranks.size();
    return absl::StrCat(
        "replicas ", group.first_replica, " to ",
        group.first_replica + static_cast<int>(size) - 1, " of stage ",
        group.stage, " count as one node, but their workers are on ",
        absl::StrJoin(hosts, ", "),
        ": their gradients cross the network in full precision; start ", size,
        " workers, or a multiple, on each host, or set parallel.nodes to ",
        "another number (0: every replica is a node)");
  }
  return "";
}

}  // namespace deltapipe
