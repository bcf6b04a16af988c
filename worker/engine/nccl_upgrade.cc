#include "worker/engine/nccl_upgrade.h"

#include <map>
#include <memory>
#include <utility>

#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

/// The process's context for a device, made at the first call that succeeds.
absl::StatusOr<NcclContext*> LoadOnce(int device) {
  // Never destroyed: a communicator that does not end must not hold up the end
  // of the process.
  static Mutex* const mutex = new Mutex;
  static auto* const contexts = new std::map<int, NcclContext*>;
  // Loads under the lock: whoever comes second has to wait for it anyway.
  MutexLock lock(mutex);
  NcclContext*& context = (*contexts)[device];
  if (context == nullptr) {
    DP_ASSIGN_OR_RETURN(auto loaded, NcclContext::Load(device));
    context = loaded.release();
  }
  return context;
}

}  // namespace

MakeChannelUpgrade NcclUpgrades(const NcclUpgradeOptions& options) {
  return [options]() -> absl::StatusOr<ChannelUpgrade> {
    if (options.is_secured && !options.allows_plain_text) {
      return absl::PermissionDeniedError(
          "it encrypts nothing, and this worker's channels are TLS: start it "
          "with --nccl-plaintext if everybody on the network between the GPUs "
          "may read and write what is trained");
    }
    DP_ASSIGN_OR_RETURN(NcclContext* const context, LoadOnce(options.device));
    LOG_INFO << "boundaries and gradients go over " << context->description()
             << " (" << context->nccl().path << "), in plain text";
    return NcclUpgrade(context);
  };
}

ChannelUpgrade NcclUpgrade(NcclContext* context,
                           const NcclChannelOptions& options) {
  return [context, options](std::unique_ptr<Channel> channel,
                            bool is_lower_rank, Deadline deadline,
                            const std::atomic<bool>* is_cancelled) {
    return WrapWithNccl(std::move(channel), context, is_lower_rank, options,
                        deadline, is_cancelled);
  };
}

}  // namespace deltapipe
