#include "coordinator/service/service_health.h"

#include <grpcpp/health_check_service_interface.h>

#include "proto/deltapipe/v1/admin.grpc.pb.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"
#include "proto/deltapipe/v1/enrollment.grpc.pb.h"
#include "proto/deltapipe/v1/tuning.grpc.pb.h"

namespace deltapipe {

void SetServing(grpc::Server* server, bool is_serving) {
  grpc::HealthCheckServiceInterface* health = server->GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus(is_serving);
  for (const char* name : {v1::JobService::service_full_name(),
                           v1::TuningService::service_full_name(),
                           v1::ControlService::service_full_name(),
                           v1::EnrollmentService::service_full_name()}) {
    health->SetServingStatus(name, is_serving);
  }
}

}  // namespace deltapipe
