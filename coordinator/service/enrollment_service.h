// EnrollmentService over gRPC: certificates for workers, and a line in the
// audit log for each.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_ENROLLMENT_SERVICE_H_
#define DELTAPIPE_COORDINATOR_SERVICE_ENROLLMENT_SERVICE_H_

#include <string>

#include "coordinator/security/coordinator_security.h"
#include "proto/deltapipe/v1/enrollment.grpc.pb.h"

namespace deltapipe {

class EnrollmentServiceImpl : public v1::EnrollmentService::Service {
 public:
  /// `security` outlives the server that serves this.
  explicit EnrollmentServiceImpl(CoordinatorSecurity* security)
      : security_(security) {}

  grpc::Status Enroll(grpc::ServerContext* context,
                      const v1::EnrollRequest* request,
                      v1::Enrollment* response) override;
  grpc::Status Renew(grpc::ServerContext* context,
                     const v1::RenewRequest* request,
                     v1::Enrollment* response) override;

 private:
  grpc::Status Answer(const grpc::ServerContext& context,
                      const std::string& what, const std::string& who,
                      const absl::StatusOr<IssuedCertificate>& issued,
                      v1::Enrollment* response);

  CoordinatorSecurity* const security_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_ENROLLMENT_SERVICE_H_
