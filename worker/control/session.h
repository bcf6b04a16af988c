// Session: the worker's stream to the coordinator.
//
// Sends Hello, waits for Welcome, heartbeats on its own thread and hands every
// other message to `on_message` on its reader thread. Send may be called from
// any thread and never blocks on the network. The stream's end, from whichever
// side, is told once through `on_end`.
#ifndef DELTAPIPE_WORKER_CONTROL_SESSION_H_
#define DELTAPIPE_WORKER_CONTROL_SESSION_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace grpc {
class ChannelCredentials;
}

namespace deltapipe {

/// What a connection is made with; asked for each, since certificates are
/// renewed. Null, or a null result: plain text.
using MakeCredentials =
    std::function<std::shared_ptr<grpc::ChannelCredentials>()>;

struct SessionOptions {
  std::string coordinator;  // "10.77.0.1:7707"
  v1::Hello hello;
  MakeCredentials credentials;
  std::chrono::nanoseconds connect_timeout = std::chrono::seconds(20);
  std::function<void(const v1::CoordinatorMessage&)> on_message;
  std::function<void(const absl::Status&)> on_end;
  /// What the next heartbeat says.
  std::function<v1::Heartbeat()> heartbeat;
};

class Session {
 public:
  virtual ~Session() = default;
  /// UNAVAILABLE if nobody answers at the address, FAILED_PRECONDITION if the
  /// coordinator refuses this worker (another version, ...): the message says
  /// why.
  static absl::StatusOr<std::unique_ptr<Session>> Open(SessionOptions options);

  virtual const v1::Welcome& welcome() const = 0;
  virtual void Send(v1::WorkerMessage message) = 0;
  /// Ends the stream after what was sent has gone out.
  virtual void Close() = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CONTROL_SESSION_H_
