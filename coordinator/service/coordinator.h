// Coordinator: the whole control plane in one object, used by `deltapipe run`
// (inside its own process) and `deltapipe coordinator` (for many hosts).
//
// Serves JobService and ControlService on one gRPC address, keeps jobs, plans
// and events in SQLite, watches workers, and runs one background thread per
// job.
//
//   DP_ASSIGN_OR_RETURN(auto coordinator, Coordinator::Start(options));
//   LOG_INFO << "listening on " << coordinator->address();
//   coordinator->Shutdown("interrupted");   // or the destructor
#ifndef DELTAPIPE_COORDINATOR_SERVICE_COORDINATOR_H_
#define DELTAPIPE_COORDINATOR_SERVICE_COORDINATOR_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/path_roots.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

class CoordinatorSecurity;
class WorkerSupply;

struct CoordinatorOptions {
  /// "127.0.0.1:0"; port 0 picks one.
  std::string listen = "127.0.0.1:0";
  /// Allows listening off loopback, in plain text.
  bool insecure = false;
  /// The SQLite file; its folder must exist and be writable.
  std::string store_path;
  /// Measures layer costs for a spec (runs `deltapipe-worker --profile`).
  std::function<absl::StatusOr<v1::StageProfile>(const v1::JobSpec&)> profiler;
  /// Makes a `profiler` that is at work return soon; called by Shutdown. May be
  /// null if the profiler is quick.
  std::function<void()> cancel_profiler;
  /// Workers outlive the coordinator: they go on with their jobs and wait for
  /// its successor, for as long as worker_lease. Else they end with it.
  bool keeps_workers = false;
  Nanos worker_lease = std::chrono::minutes(10);
  /// Offers server reflection: the services and messages, to whoever connects.
  bool reflection = false;
  /// When not empty, only workers that present it are let in: those that `run`
  /// has started itself.
  std::string launch_token;
  /// "127.0.0.1:9400", or a port of 127.0.0.1 alone: where /metrics and the
  /// status page are served over HTTP. Empty: nowhere.
  std::string metrics_listen;
  /// Allows that off loopback: in plain text, for everyone to read.
  bool metrics_insecure = false;
  /// Where TensorBoard's event files are written; empty: they are not.
  std::string tensorboard_folder;
  /// What of a job's data.path it may look at, to plan with its size.
  PathRoots data_roots;
  /// Where it serves TLS and asks everybody who they are; null: plain text.
  /// Outlives the coordinator.
  CoordinatorSecurity* security = nullptr;
  /// Called once if another coordinator takes over the store: this one must be
  /// shut down, by another thread. May be null.
  std::function<void(const absl::Status&)> on_taken_over;
  /// Brings workers for each job; null: whoever joins is taken. Outlives the
  /// coordinator.
  WorkerSupply* supply = nullptr;
  Clock* clock = Clock::Real();
};

class Coordinator {
 public:
  virtual ~Coordinator() = default;

  /// FAILED_PRECONDITION: the port is in use (says so, with the remedy).
  /// PERMISSION_DENIED: not loopback and not `insecure`; or the store's folder
  /// cannot be written.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(
      const CoordinatorOptions& options);

  /// "127.0.0.1:41233"
  virtual std::string address() const = 0;
  /// "127.0.0.1:9400"; empty without CoordinatorOptions::metrics_listen.
  virtual std::string metrics_address() const = 0;
  /// Says goodbye to workers, unless it keeps them, ends running jobs' threads
  /// and stops the server within 2 s. Stored jobs stay as they are.
  virtual void Shutdown(const std::string& reason) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_COORDINATOR_H_
