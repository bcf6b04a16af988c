// JobService.WatchJob.
#ifndef DELTAPIPE_COORDINATOR_RPC_WATCH_JOB_H_
#define DELTAPIPE_COORDINATOR_RPC_WATCH_JOB_H_

#include <chrono>
#include <functional>

#include "absl/status/status.h"
#include "base/clock.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

struct WatchOptions {
  /// From the end of one bookmark to the next, on the control plane's clock.
  Nanos bookmark_interval = std::chrono::seconds(10);
};

/// Calls `send` with the stored events after `after_sequence`, in order and
/// without a gap, then (unless stored_only) with new ones, until the final
/// state has been sent.
///
/// With allow_bookmarks it also sends an event of kind "bookmark" once the
/// stored events were sent, and then every interval, whether or not anything
/// happens. Its sequence is that of the stored event sent before, or
/// `after_sequence`: a watch from there on repeats nothing and misses nothing
/// but steps. Bookmarks are made here, between two events: they are in no
/// store and in no reader's queue, so they cut nobody, and one that comes late
/// does not bring those that it missed.
///
/// Blocks. Returns OK then, or when `send` returns false or `is_cancelled` true
/// (asked twice a second). NOT_FOUND; INVALID_ARGUMENT: a negative sequence;
/// RESOURCE_EXHAUSTED: the reader was too slow and is cut; UNAVAILABLE: the
/// coordinator is shutting down.
absl::Status WatchJob(ControlPlane* plane, const v1::WatchJobRequest& request,
                      const std::function<bool(const v1::JobEvent&)>& send,
                      const std::function<bool()>& is_cancelled,
                      const WatchOptions& options = WatchOptions());

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_WATCH_JOB_H_
