// What `network.transport: nccl` takes on a worker: both libraries, a device,
// and leave to send in plain text where everything else is TLS.
//
// Nothing is loaded before the first job that asks for it; what was loaded
// stays for the process's life. Thread-safe.
#ifndef DELTAPIPE_WORKER_ENGINE_NCCL_UPGRADE_H_
#define DELTAPIPE_WORKER_ENGINE_NCCL_UPGRADE_H_

#include "worker/engine/mesh.h"
#include "worker/transport/nccl/nccl_channel.h"
#include "worker/transport/nccl/nccl_context.h"

namespace deltapipe {

struct NcclUpgradeOptions {
  int device = 0;
  /// The worker's channels are TLS.
  bool is_secured = false;
  /// Somebody has said that NCCL may send in plain text all the same.
  bool allows_plain_text = false;
};

/// The result refuses with PERMISSION_DENIED where plain text is not allowed,
/// with FAILED_PRECONDITION as NcclContext::Load does.
MakeChannelUpgrade NcclUpgrades(const NcclUpgradeOptions& options);

/// Wraps channels with NCCL (WrapWithNccl); borrows `context`.
ChannelUpgrade NcclUpgrade(NcclContext* context,
                           const NcclChannelOptions& options = {});

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_NCCL_UPGRADE_H_
