// Worker: serves one coordinator, one assignment after the other, until the
// coordinator says goodbye.
//
// When the stream breaks it goes on with what it has, and looks for the
// coordinator (or its successor) for as long as the lease says that it was
// welcomed with; what it told meanwhile is told again. One that does not find
// it ends; so does one whose assignment has become another's.
//
//   Worker worker(options);
//   ... worker.Leave("SIGTERM") ...            // from any thread
//   DP_ASSIGN_OR_RETURN(WorkerEnd end, worker.Serve());
#ifndef DELTAPIPE_WORKER_CONTROL_WORKER_H_
#define DELTAPIPE_WORKER_CONTROL_WORKER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/control/assignment_paths.h"
#include "worker/control/session.h"
#include "worker/engine/mesh.h"
#include "worker/stage/stage.h"
#include "worker/transport/channel.h"

namespace deltapipe {

struct WorkerOptions {
  std::string coordinator;
  v1::Hello hello;  // all but data_address
  MakeCredentials credentials;
  std::string run_folder;  // where jobs without a folder of their own go
  WorkerRoots roots;       // what jobs may name
  Transport* transport = nullptr;
  std::function<absl::StatusOr<std::unique_ptr<Stage>>(const v1::Assignment&)>
      make_stage;
  /// Null: this worker refuses jobs with network.transport: nccl.
  MakeChannelUpgrade make_nccl;
  std::function<void(int num_threads)> set_threads;
};

enum class WorkerEnd {
  kGoodbye,
  kLeftJob,  // it was asked to leave, and its job can go on without it
};

class Worker {
 public:
  virtual ~Worker() = default;
  static std::unique_ptr<Worker> Create(const WorkerOptions& options);

  /// Blocks until the end. UNAVAILABLE: the coordinator was not there or did
  /// not come back in time.
  virtual absl::StatusOr<WorkerEnd> Serve() = 0;
  /// Asks the coordinator to let it go, after a checkpoint of its job. Any
  /// thread; returns at once.
  virtual void Leave(const std::string& reason) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CONTROL_WORKER_H_
