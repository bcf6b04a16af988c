#include "worker/engine/mesh.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "worker/transport/shaped/shaped_channel.h"

namespace deltapipe {
namespace {

struct Wanted {
  int peer_rank = 0;
  const char* purpose = "";
  bool is_bulk = false;
  std::unique_ptr<FrameChannel>* channel = nullptr;
  std::unique_ptr<Channel> raw;  // until it is framed
};

/// PERMISSION_DENIED if the other end has proven to be another worker than the
/// assignment names. In plain text nobody proves anything.
absl::Status CheckIdentity(const Channel& channel, const v1::Peer& peer) {
  const std::string shown = channel.capabilities().peer_identity;
  if (shown.empty() || shown == peer.worker_id()) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "the certificate at the other end is that of ", shown, ", expected ",
      peer.worker_id(), ": does another worker listen at that address?"));
}

/// The channel of the worker that the assignment names; connections under the
/// same name by others are closed.
absl::StatusOr<std::unique_ptr<Channel>> AcceptFrom(
    const v1::Peer& peer, Transport* transport, const std::string& name,
    const std::atomic<bool>& is_cancelled, Deadline deadline) {
  while (true) {
    // A transport outlives its jobs and cannot be cancelled for one of them.
    if (is_cancelled) return absl::CancelledError("the job was stopped");
    auto channel = transport->Accept(
        name, std::min(deadline, Deadline::After(kCancelPoll)));
    if (channel.ok()) {
      const absl::Status checked = CheckIdentity(**channel, peer);
      if (checked.ok()) return channel;
      LOG_WARNING << "closed the connection " << (*channel)->peer() << ": "
                  << checked.message();
    } else if (!absl::IsDeadlineExceeded(channel.status()) ||
               deadline.has_passed()) {
      return channel;
    }
  }
}

/// Every channel of a worker's; its place in `mesh` is borrowed.
std::vector<Wanted> ListWanted(const v1::Assignment& assignment,
                               const std::vector<int>& tied_stages,
                               Mesh* mesh) {
  const int num_stages = assignment.plan().num_stages();
  const int num_replicas = assignment.plan().num_replicas();
  const int rank = assignment.rank();
  const int stage = rank / num_replicas;
  const int replica = rank % num_replicas;
  mesh->stage_scalars.resize(static_cast<size_t>(num_stages));
  mesh->replica_scalars.resize(static_cast<size_t>(num_replicas));
  mesh->gradients.resize(static_cast<size_t>(num_replicas));

  std::vector<Wanted> wanted;
  const auto want = [&](int peer, const char* purpose, bool is_bulk,
                        std::unique_ptr<FrameChannel>* channel) {
    wanted.push_back({peer, purpose, is_bulk, channel, nullptr});
  };
  if (stage > 0) {
    want(rank - num_replicas, "boundary", true, &mesh->previous_stage);
  }
  if (stage + 1 < num_stages) {
    want(rank + num_replicas, "boundary", true, &mesh->next_stage);
  }
  for (int other = 0; other < num_stages; ++other) {
    if (other == stage) continue;
    want(other * num_replicas + replica, "stages", false,
         &mesh->stage_scalars[static_cast<size_t>(other)]);
  }
  for (int other = 0; other < num_replicas; ++other) {
    if (other == replica) continue;
    const int peer = stage * num_replicas + other;
    want(peer, "replicas", false,
         &mesh->replica_scalars[static_cast<size_t>(other)]);
    want(peer, "gradients", true, &mesh->gradients[static_cast<size_t>(other)]);
  }
  mesh->tied.resize(tied_stages.size() * static_cast<size_t>(num_replicas));
  for (size_t i = 0; i < mesh->tied.size(); ++i) {
    const int place = static_cast<int>(i);
    const int owner = tied_stages[static_cast<size_t>(place / num_replicas)];
    const int peer = owner * num_replicas + place % num_replicas;
    if (peer != rank) want(peer, "tied", true, &mesh->tied[i]);
  }
  return wanted;
}

absl::StatusOr<std::unique_ptr<Channel>> OpenOne(
    const v1::Assignment& assignment, Transport* transport, const Wanted& want,
    const std::atomic<bool>& is_cancelled, Deadline deadline) {
  const int rank = assignment.rank();
  const v1::Peer& peer = assignment.peers(want.peer_rank);
  const std::string name = absl::StrCat(
      assignment.job_id(), "/g", assignment.generation(), "/", want.purpose,
      "/", std::min(rank, want.peer_rank), "-", std::max(rank, want.peer_rank));
  if (want.peer_rank < rank) {
    return AcceptFrom(peer, transport, name, is_cancelled, deadline);
  }
  DP_ASSIGN_OR_RETURN(
      auto channel,
      transport->Connect(peer.data_address(), name, deadline, &is_cancelled));
  DP_RETURN_IF_ERROR(CheckIdentity(*channel, peer));
  return channel;
}

/// Each worker takes its channels in the order of (lower rank, higher rank,
/// purpose): of all channels that are left, the first has both its ends at it,
/// so that no two wait for each other.
absl::Status UpgradeBulk(const v1::Assignment& assignment,
                         const ChannelUpgrade& upgrade,
                         const std::atomic<bool>& is_cancelled,
                         Deadline deadline, std::vector<Wanted>* wanted) {
  const int rank = assignment.rank();
  const auto place = [rank](const Wanted* want) {
    return std::make_tuple(std::min(rank, want->peer_rank),
                           std::max(rank, want->peer_rank),
                           std::string(want->purpose));
  };
  std::vector<Wanted*> bulk;
  for (Wanted& want : *wanted) {
    if (want.is_bulk) bulk.push_back(&want);
  }
  std::sort(bulk.begin(), bulk.end(), [&](const Wanted* a, const Wanted* b) {
    return place(a) < place(b);
  });
  for (Wanted* want : bulk) {
    auto upgraded = upgrade(std::move(want->raw), rank < want->peer_rank,
                            deadline, &is_cancelled);
    if (!upgraded.ok()) {
      return Annotate(
          upgraded.status(),
          absl::StrCat("join ", want->purpose, " with ",
                       PeerName(assignment.peers(want->peer_rank))));
    }
    want->raw = *std::move(upgraded);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Mesh> Mesh::Connect(const v1::Assignment& assignment,
                                   Transport* transport,
                                   const MeshOptions& options,
                                   const std::atomic<bool>& is_cancelled,
                                   Deadline deadline) {
  const int rank = assignment.rank();
  Mesh mesh;
  std::vector<Wanted> wanted =
      ListWanted(assignment, options.tied_stages, &mesh);
  // All connections are opened before any is awaited: the peer's transport
  // holds them until it asks, so the order of the ranks does not matter.
  std::stable_partition(wanted.begin(), wanted.end(),
                        [rank](const Wanted& w) { return w.peer_rank > rank; });
  for (Wanted& want : wanted) {
    auto channel = OpenOne(assignment, transport, want, is_cancelled, deadline);
    if (!channel.ok()) {
      return Annotate(channel.status(),
                      absl::StrCat("connect ", want.purpose, " with ",
                                   PeerName(assignment.peers(want.peer_rank))));
    }
    want.raw = *std::move(channel);
  }
  if (options.upgrade) {
    DP_RETURN_IF_ERROR(UpgradeBulk(assignment, options.upgrade, is_cancelled,
                                   deadline, &wanted));
  }
  for (Wanted& want : wanted) {
    if (options.decorate) {
      want.raw = options.decorate(std::move(want.raw), want.peer_rank);
    }
    DP_ASSIGN_OR_RETURN(*want.channel, FrameChannel::Create(std::move(want.raw),
                                                            options.frames));
  }
  return mesh;
}

void Mesh::ForEach(const std::function<void(FrameChannel*)>& visit) const {
  const auto visit_one = [&](const std::unique_ptr<FrameChannel>& channel) {
    if (channel != nullptr) visit(channel.get());
  };
  visit_one(previous_stage);
  visit_one(next_stage);
  for (const auto* group :
       {&stage_scalars, &replica_scalars, &gradients, &tied}) {
    for (const auto& channel : *group) visit_one(channel);
  }
}

absl::StatusOr<LinkOptions> EmulatedLink(const v1::JobSpec& spec) {
  const v1::LinkSpec& link = spec.network().emulate();
  LinkOptions options;
  if (!link.bandwidth().empty()) {
    DP_ASSIGN_OR_RETURN(options.bits_per_second,
                        ParseBandwidth(link.bandwidth()));
  }
  if (!link.latency().empty()) {
    DP_ASSIGN_OR_RETURN(options.latency, ParseDuration(link.latency()));
  }
  DP_RETURN_IF_ERROR(LinkShaper::Create(options).status());
  return options;
}

ChannelDecorator ShapedLinks(
    const LinkOptions& options,
    std::map<int, std::shared_ptr<LinkShaper>> links_by_peer) {
  std::set<int> adjustable;
  for (const auto& [peer, link] : links_by_peer) adjustable.insert(peer);
  auto links = std::make_shared<std::map<int, std::shared_ptr<LinkShaper>>>(
      std::move(links_by_peer));
  const bool shapes_all =
      options.bits_per_second > 0 || options.latency > Nanos(0);
  return [=](std::unique_ptr<Channel> channel, int peer) {
    std::shared_ptr<LinkShaper>& shaper = (*links)[peer];
    const bool may_change = shaper != nullptr && adjustable.count(peer) > 0;
    if (shaper == nullptr) {
      if (!shapes_all) return channel;
      shaper = LinkShaper::Create(options).value();  // as EmulatedLink has seen
    }
    return ShapeChannel(std::move(channel), shaper, may_change);
  };
}

std::string PeerName(const v1::Peer& peer) {
  return absl::StrCat(peer.worker_id(), " (stage ", peer.stage(), ", replica ",
                      peer.replica(), ")");
}

}  // namespace deltapipe
