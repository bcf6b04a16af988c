#include "coordinator/service/coordinator.h"

#include <string>
#include <utility>
#include <vector>

#include "base/host_name.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "coordinator/schedule/build_plan.h"
#include "coordinator/service/control_plane_server.h"
#include "coordinator/service/listen_address.h"
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

}  // namespace

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(
    const CoordinatorOptions& options) {
  DP_ASSIGN_OR_RETURN(const ListenAddress listen,
                      ParseListenAddress(options.listen));
  // Before the store is made or taken.
  DP_RETURN_IF_ERROR(CheckMayListen(
      listen, options.insecure || options.security != nullptr));
  ControlPlaneOptions plane;
  DP_ASSIGN_OR_RETURN(plane.store, SqliteJobStore::Open(options.store_path));
  plane.roster.version = kVersion;
  plane.roster.launch_token = options.launch_token;
  plane.clock = options.clock;
  plane.host = HostName();
  plane.profiler = options.profiler;
  plane.plan = Plan;
  plane.check_spec = CheckSpec;
  DP_ASSIGN_OR_RETURN(
      std::unique_ptr<ControlPlaneServer> server,
      ControlPlaneServer::Start(listen, options.insecure, std::move(plane),
                                options.security));
  server->OnShutdown(options.cancel_profiler);
  return std::unique_ptr<Coordinator>(std::move(server));
}

}  // namespace deltapipe
