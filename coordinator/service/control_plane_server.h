// ControlPlaneServer: a ControlPlane on a gRPC address, with health service.
//
// Every service is NOT_SERVING before the shutdown begins.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_CONTROL_PLANE_SERVER_H_
#define DELTAPIPE_COORDINATOR_SERVICE_CONTROL_PLANE_SERVER_H_

#include <grpcpp/server.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "coordinator/rpc/job_tuning_control.h"
#include "coordinator/security/coordinator_security.h"
#include "coordinator/service/control_service.h"
#include "coordinator/service/coordinator.h"
#include "coordinator/service/enrollment_service.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/listen_address.h"
#include "coordinator/service/tuning_service.h"

namespace deltapipe {

class ControlPlaneServer : public Coordinator {
 public:
  /// See Coordinator::Start for the errors of listening. With `security`, which
  /// outlives the server, it serves TLS and asks everybody who they are;
  /// without, plain text to anybody.
  static absl::StatusOr<std::unique_ptr<ControlPlaneServer>> Start(
      const ListenAddress& listen, bool insecure, ControlPlaneOptions options,
      CoordinatorSecurity* security = nullptr, bool reflection = false);
  ~ControlPlaneServer() override;

  std::string address() const override { return address_; }
  std::string metrics_address() const override { return std::string(); }
  void Shutdown(const std::string& reason) override;

  ControlPlane* plane() { return plane_.get(); }

  /// Called first in Shutdown: ends what jobs may wait for.
  void OnShutdown(std::function<void()> callback) {
    on_shutdown_ = std::move(callback);
  }

 private:
  ControlPlaneServer(std::unique_ptr<ControlPlane> plane,
                     CoordinatorSecurity* security);

  const std::unique_ptr<ControlPlane> plane_;
  ControlServiceImpl control_service_;
  JobServiceImpl job_service_;
  JobTuningControl tuning_control_;
  TuningServiceImpl tuning_service_;
  EnrollmentServiceImpl enrollment_service_;  // served with TLS only
  std::function<void()> on_shutdown_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;  // null after Shutdown
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_CONTROL_PLANE_SERVER_H_
