// InterruptibleClient: a JobClient whose calls end when a signal comes.
//
//   InterruptibleClient client(address);
//   const absl::Status status = client->Watch(request, on_event);
//   if (client.signal() != 0) return ExitCodeOfSignal(client.signal());
#ifndef DELTAPIPE_COORDINATOR_CLI_INTERRUPTIBLE_CLIENT_H_
#define DELTAPIPE_COORDINATOR_CLI_INTERRUPTIBLE_CLIENT_H_

#include <atomic>
#include <string>

#include "coordinator/cli/job_client.h"
#include "coordinator/cli/signal_watch.h"

namespace deltapipe {

class InterruptibleClient {
 public:
  explicit InterruptibleClient(const std::string& address)
      : signals_([this](int, int) { StopClient(); }), client_(address) {
    stoppable_ = &client_;
    // One that came before there was anything to stop.
    if (signal() != 0) client_.Stop();
  }
  ~InterruptibleClient() { stoppable_ = nullptr; }

  JobClient* operator->() { return &client_; }
  /// The first that came; 0 if none has.
  int signal() const { return signals_.first_signal(); }

 private:
  void StopClient() {
    JobClient* const client = stoppable_;
    if (client != nullptr) client->Stop();
  }

  std::atomic<JobClient*> stoppable_{nullptr};
  // Before the client: signals are blocked before gRPC starts its threads.
  SignalWatch signals_;
  JobClient client_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_INTERRUPTIBLE_CLIENT_H_
