#include "coordinator/service/coordinator.h"

#include <string>
#include <utility>
#include <vector>

#include "base/host_name.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "coordinator/metrics/tensorboard_writer.h"
#include "coordinator/schedule/build_plan.h"
#include "coordinator/service/control_plane_server.h"
#include "coordinator/service/listen_address.h"
#include "coordinator/service/status_server.h"
#include "coordinator/spec/job_spec.h"
#include "coordinator/store/sqlite_job_store.h"

namespace deltapipe {
namespace {

absl::StatusOr<PlanAnswer> Plan(const PlanRequest& request) {
  PlanInputs inputs;
  inputs.spec = request.spec;
  inputs.profile = request.profile;
  inputs.train_samples = request.train_samples;
  inputs.worker_memory_bytes = request.worker_memory_bytes;
  inputs.compute_slowdown = request.compute_slowdown;
  DP_ASSIGN_OR_RETURN(PlannedJob planned, BuildPlan(inputs));
  return PlanAnswer{std::move(planned.plan), std::move(planned.notes)};
}

std::vector<std::string> CheckSpec(const v1::JobSpec& spec) {
  std::vector<std::string> sentences;
  for (const SpecViolation& violation : ValidateJobSpec(spec)) {
    sentences.push_back(violation.ToString());
  }
  return sentences;
}

/// A coordinator whose figures are shown elsewhere, too.
class MonitoredCoordinator : public Coordinator {
 public:
  MonitoredCoordinator(std::unique_ptr<TensorBoardWriter> tensorboard,
                       std::unique_ptr<ControlPlaneServer> server,
                       std::unique_ptr<HttpServer> status)
      : tensorboard_(std::move(tensorboard)),
        server_(std::move(server)),
        status_(std::move(status)) {}

  std::string address() const override { return server_->address(); }
  std::string metrics_address() const override {
    return status_ == nullptr ? std::string() : status_->address();
  }
  void Shutdown(const std::string& reason) override {
    status_.reset();
    server_->Shutdown(reason);
  }

 private:
  // Each outlives those below it.
  const std::unique_ptr<TensorBoardWriter> tensorboard_;  // may be null
  const std::unique_ptr<ControlPlaneServer> server_;
  std::unique_ptr<HttpServer> status_;  // may be null
};

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(
    const CoordinatorOptions& options) {
  DP_ASSIGN_OR_RETURN(const ListenAddress listen,
                      ParseListenAddress(options.listen));
  // Before the store is made or taken.
  DP_RETURN_IF_ERROR(
      CheckMayListen(listen, options.insecure || options.security != nullptr));
  ListenAddress status_listen;
  if (!options.metrics_listen.empty()) {
    DP_ASSIGN_OR_RETURN(status_listen,
                        ParseStatusAddress(options.metrics_listen));
    DP_RETURN_IF_ERROR(
        CheckMayServeStatus(status_listen, options.metrics_insecure));
  }
  std::unique_ptr<TensorBoardWriter> tensorboard;
  if (!options.tensorboard_folder.empty()) {
    DP_ASSIGN_OR_RETURN(
        tensorboard,
        TensorBoardWriter::Create(options.tensorboard_folder, options.clock));
  }
  ControlPlaneOptions plane;
  plane.metrics = tensorboard.get();
  DP_ASSIGN_OR_RETURN(plane.store, SqliteJobStore::Open(options.store_path,
                                                        options.on_taken_over));
  plane.roster.version = kVersion;
  plane.roster.launch_token = options.launch_token;
  plane.roster.awaits_return = options.keeps_workers;
  plane.roster.lease = options.worker_lease;
  plane.supply = options.supply;
  plane.clock = options.clock;
  plane.host = HostName();
  plane.data_roots = options.data_roots;
  plane.profiler = options.profiler;
  plane.plan = Plan;
  plane.check_spec = CheckSpec;
  DP_ASSIGN_OR_RETURN(
      std::unique_ptr<ControlPlaneServer> server,
      ControlPlaneServer::Start(listen, options.insecure, std::move(plane),
                                options.security, options.reflection));
  server->OnShutdown(options.cancel_profiler);
  std::unique_ptr<HttpServer> status;
  if (!options.metrics_listen.empty()) {
    DP_ASSIGN_OR_RETURN(status,
                        StartStatusServer(server->plane(), status_listen));
  }
  if (tensorboard == nullptr && status == nullptr) {
    return std::unique_ptr<Coordinator>(std::move(server));
  }
  return std::unique_ptr<Coordinator>(new MonitoredCoordinator(
      std::move(tensorboard), std::move(server), std::move(status)));
}

}  // namespace deltapipe
