// Mesh: the frame channels of one worker in one job: to the stages before and
// after its own, to the other stages of its replica, to the other replicas of
// its stage, and to all replicas of the stages that hold weights of its own.
//
// Connect blocks until every peer is there, the deadline, or `is_cancelled`. Of
// each pair the lower rank connects and the higher accepts. What carries bulk,
// boundaries and gradients, may then be moved onto another transport.
#ifndef DELTAPIPE_WORKER_ENGINE_MESH_H_
#define DELTAPIPE_WORKER_ENGINE_MESH_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/transport/channel.h"
#include "worker/transport/frame_channel.h"
#include "worker/transport/shaped/link_shaper.h"

namespace deltapipe {

/// Wraps a raw channel to the peer of that rank: shaping, faults, recording.
using ChannelDecorator = std::function<std::unique_ptr<Channel>(
    std::unique_ptr<Channel> channel, int peer_rank)>;

/// Moves a channel's bulk onto another transport, together with the peer, which
/// does the same; of the two one is the lower rank. Blocks.
using ChannelUpgrade = std::function<absl::StatusOr<std::unique_ptr<Channel>>(
    std::unique_ptr<Channel> channel, bool is_lower_rank, Deadline deadline,
    const std::atomic<bool>* is_cancelled)>;

/// FAILED_PRECONDITION or PERMISSION_DENIED, with the remedy, if this worker
/// cannot or must not.
using MakeChannelUpgrade = std::function<absl::StatusOr<ChannelUpgrade>()>;

struct MeshOptions {
  /// Of boundaries and gradients, in an order that all workers share; scalars
  /// stay as they are. Null: none.
  ChannelUpgrade upgrade;
  /// Of every channel, above that: what is shaped is all that a link carries.
  /// Null: none.
  ChannelDecorator decorate;
  FrameChannelOptions frames;
  /// ParameterLayout::tied_stages; empty: this worker's stage ties nothing.
  std::vector<int> tied_stages;
};

struct Mesh {
  std::unique_ptr<FrameChannel> previous_stage;  // null at the first stage
  std::unique_ptr<FrameChannel> next_stage;      // null at the last stage
  // By stage or replica; null at the own index.
  std::vector<std::unique_ptr<FrameChannel>> stage_scalars;
  std::vector<std::unique_ptr<FrameChannel>> replica_scalars;
  std::vector<std::unique_ptr<FrameChannel>> gradients;
  // By TiedRank (tied_part.h); null at the own one, empty without tied weights.
  std::vector<std::unique_ptr<FrameChannel>> tied;

  static absl::StatusOr<Mesh> Connect(const v1::Assignment& assignment,
                                      Transport* transport,
                                      const MeshOptions& options,
                                      const std::atomic<bool>& is_cancelled,
                                      Deadline deadline);
  /// Calls `visit` for every channel that is there.
  void ForEach(const std::function<void(FrameChannel*)>& visit) const;
};

/// The network.emulate of a spec: 0 and 0 for none.
absl::StatusOr<LinkOptions> EmulatedLink(const v1::JobSpec& spec);
/// Each ordered pair of workers has one link of these options, shared by all
/// its channels; that of a pair in `links` is its own, and may change its rate.
ChannelDecorator ShapedLinks(
    const LinkOptions& options,
    std::map<int, std::shared_ptr<LinkShaper>> links_by_peer);

/// "worker-3 (stage 1, replica 0)".
std::string PeerName(const v1::Peer& peer);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_MESH_H_
