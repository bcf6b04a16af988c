// Connections that came in under a name and wait for the Accept that names
// them, or the other way round. Each Transport owns one. Thread-safe.
#ifndef DELTAPIPE_WORKER_TRANSPORT_HELD_CONNECTIONS_H_
#define DELTAPIPE_WORKER_TRANSPORT_HELD_CONNECTIONS_H_

#include <list>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "worker/transport/channel.h"

namespace deltapipe {

class HeldConnections {
 public:
  static constexpr size_t kMaxHeld = 256;

  /// Holds `channel` under `name`; beyond kMaxHeld the oldest is dropped, which
  /// closes it. After Cancel the channel is dropped at once.
  void Add(const std::string& name, std::unique_ptr<Channel> channel);
  /// Takes the oldest channel under `name`, waiting for it.
  absl::StatusOr<std::unique_ptr<Channel>> Take(const std::string& name,
                                                const std::string& address,
                                                Deadline deadline);
  /// Drops all and makes blocked and later Takes return `reason`.
  void Cancel(const absl::Status& reason);

 private:
  using Entry = std::pair<std::string, std::unique_ptr<Channel>>;

  Mutex mutex_;
  CondVar changed_;
  std::list<Entry> held_ DP_GUARDED_BY(mutex_);
  absl::Status cancelled_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_HELD_CONNECTIONS_H_
