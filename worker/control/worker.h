// Worker: serves one coordinator, one assignment after the other, until the
// coordinator says goodbye or the stream breaks.
#ifndef DELTAPIPE_WORKER_CONTROL_WORKER_H_
#define DELTAPIPE_WORKER_CONTROL_WORKER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/control/session.h"
#include "worker/stage/stage.h"
#include "worker/transport/channel.h"

namespace deltapipe {

struct WorkerOptions {
  std::string coordinator;
  v1::Hello hello;         // all but data_address
  MakeCredentials credentials;
  std::string run_folder;  // where jobs without a folder of their own go
  Transport* transport = nullptr;
  std::function<absl::StatusOr<std::unique_ptr<Stage>>(const v1::Assignment&)>
      make_stage;
  std::function<void(int num_threads)> set_threads;
};

/// Blocks until the end; OK after a goodbye.
absl::Status ServeCoordinator(const WorkerOptions& options);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CONTROL_WORKER_H_
