// A decorator that moves large messages over NCCL and the rest, headers
// included, over the channel below: "nccl(tcp)".
//
// A message of up to `inline_bytes` goes whole over the channel below, the
// control lane. A larger one is announced there, and its bytes go over the edge
// of its direction (nccl_edge.h); the peer issues the exact receive once it has
// read the announcement. So messages keep their order, the peer's window is two
// chunks, and bytes that nobody has announced cannot arrive. Both directions
// have a communicator of their own, since sending and receiving threads must
// not share one.
//
// Counters count what a message counts on any channel. What NCCL carries is in
// plain text, whatever the channel below does.
//
//   DP_ASSIGN_OR_RETURN(channel, WrapWithNccl(std::move(channel), context,
//                                             /*is_lower_rank=*/true, {},
//                                             deadline, &is_cancelled));
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_CHANNEL_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/deadline.h"
#include "worker/transport/channel.h"
#include "worker/transport/nccl/nccl_context.h"

namespace deltapipe {

struct NcclChannelOptions {
  /// The largest message that goes whole over the channel below.
  int64_t inline_bytes = int64_t{16} << 10;
  /// What goes over NCCL at once; must be the same at both ends.
  int64_t chunk_bytes = int64_t{1} << 20;
  /// How long the destructor waits for a peer that has not read all yet.
  Nanos linger = std::chrono::seconds(1);
};

/// Blocks until both ends have come and a first chunk has crossed each way; of
/// the two ends one is the lower rank. A thread that wraps several channels
/// takes them in an order that all its peers share, or they wait for each other
/// for ever. `context` is borrowed. FAILED_PRECONDITION if the versions of NCCL
/// or the options differ, or as of NcclEdge::Create, as RESOURCE_EXHAUSTED;
/// DEADLINE_EXCEEDED; UNAVAILABLE; CANCELLED soon after `is_cancelled` (null:
/// never) becomes true.
absl::StatusOr<std::unique_ptr<Channel>> WrapWithNccl(
    std::unique_ptr<Channel> channel, NcclContext* context, bool is_lower_rank,
    const NcclChannelOptions& options, Deadline deadline,
    const std::atomic<bool>* is_cancelled);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_CHANNEL_H_
