#include "coordinator/service/control_plane_server.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/service/message_size.h"
#include "coordinator/service/reflection.h"
#include "coordinator/service/request_guard.h"
#include "coordinator/service/rpc_meter.h"
#include "coordinator/service/service_health.h"

namespace deltapipe {
namespace {

/// Threads of the server; each watch holds one.
constexpr int kMaxThreads = 128;

/// Whom the certificate of a worker's stream shows; null without TLS.
ControlServiceImpl::WorkerOf WorkerNamer(CoordinatorSecurity* security) {
  if (security == nullptr) return nullptr;
  return [security](const grpc::ServerContextBase& context)
             -> absl::StatusOr<std::string> {
    DP_ASSIGN_OR_RETURN(
        const Caller caller,
        CallerOf(*security, "/deltapipe.v1.ControlService/Session", context));
    return caller.worker;
  };
}

/// Writes down what workers refuse to do for jobs; null without TLS.
ControlServiceImpl::OnRefusal RefusalAuditor(CoordinatorSecurity* security) {
  if (security == nullptr) return nullptr;
  return [security](const std::string& worker_id, const std::string& host,
                    const v1::AssignmentDone& done) {
    AuditEntry entry;
    entry.who = worker_id;
    entry.from = host;
    entry.what = "ControlService.AssignmentDone";
    entry.object = done.job_id();
    entry.result =
        absl::StatusCodeToString(absl::StatusCode::kPermissionDenied);
    entry.reason = done.error_message();
    entry.is_refusal = true;
    security->audit()->Add(entry);
  };
}

/// As the event log names who changes knobs.
TuningServiceImpl::PrincipalOf PrincipalNamer(CoordinatorSecurity* security) {
  if (security == nullptr) return TuningServiceImpl::PeerName;
  return [security](const grpc::ServerContext& context) {
    const auto caller = CallerOf(
        *security, "/deltapipe.v1.TuningService/UpdateTuning", context);
    return caller.ok() ? caller->name : TuningServiceImpl::PeerName(context);
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<ControlPlaneServer>> ControlPlaneServer::Start(
    const ListenAddress& listen, bool insecure, ControlPlaneOptions options,
    CoordinatorSecurity* security, bool reflection) {
  DP_RETURN_IF_ERROR(CheckMayListen(listen, insecure || security != nullptr));
  DP_ASSIGN_OR_RETURN(std::unique_ptr<ControlPlane> plane,
                      ControlPlane::Create(std::move(options)));
  std::unique_ptr<ControlPlaneServer> server(
      new ControlPlaneServer(std::move(plane), security));

  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(listen.ToString(),
                           security == nullptr
                               ? grpc::InsecureServerCredentials()
                               : MakeGuardedCredentials(security),
                           &port);
  std::vector<
      std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
      interceptors;
  interceptors.push_back(MakeRpcMeter(server->plane_->rpcs()));
  if (security != nullptr) {
    builder.RegisterService(&server->enrollment_service_);
    interceptors.push_back(MakeAuditor(security));
  }
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  builder.SetMaxReceiveMessageSize(kMaxReceivedBytes);
  builder.RegisterService(&server->control_service_);
  builder.RegisterService(&server->job_service_);
  builder.RegisterService(&server->tuning_service_);
  builder.SetOption(ReflectionOption(reflection));
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  grpc::ResourceQuota quota("coordinator");
  quota.SetMaxThreads(kMaxThreads);
  builder.SetResourceQuota(quota);
  // With SO_REUSEPORT a second coordinator would share the port unnoticed.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || port == 0) {
    // Taken between the check and now, most likely.
    DP_RETURN_IF_ERROR(CheckListenAddress(listen));
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", listen.ToString(),
                     ": try again, or choose another port"));
  }
  SetServing(server->server_.get(), true);
  server->address_ = ListenAddress{listen.host, port}.ToString();
  return server;
}

ControlPlaneServer::ControlPlaneServer(std::unique_ptr<ControlPlane> plane,
                                       CoordinatorSecurity* security)
    : plane_(std::move(plane)),
      control_service_(plane_->jobs(), WorkerNamer(security),
                       RefusalAuditor(security)),
      job_service_(plane_.get()),
      tuning_control_(plane_.get()),
      tuning_service_(&tuning_control_, PrincipalNamer(security)),
      enrollment_service_(security) {}

ControlPlaneServer::~ControlPlaneServer() { Shutdown("destroyed"); }

void ControlPlaneServer::Shutdown(const std::string& reason) {
  if (server_ == nullptr) return;
  SetServing(server_.get(), false);
  if (on_shutdown_ != nullptr) on_shutdown_();
  plane_->Shutdown(reason);
  server_->Shutdown(std::chrono::system_clock::now() +
                    std::chrono::milliseconds(1000));
  server_->Wait();
  server_.reset();
}

}  // namespace deltapipe
