#include "coordinator/service/enrollment_service.h"

#include "base/log.h"
#include "coordinator/service/message_size.h"
#include "coordinator/service/peer_host.h"
#include "coordinator/service/request_guard.h"
#include "coordinator/service/rich_status.h"

namespace deltapipe {

grpc::Status EnrollmentServiceImpl::Enroll(grpc::ServerContext* context,
                                           const v1::EnrollRequest* request,
                                           v1::Enrollment* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) {
    return Answer(*context, "EnrollmentService.Enroll", "nobody", fits,
                  response);
  }
  const auto issued = security_->Enroll(
      request->join_token(), request->signing_request(), request->worker_id());
  return Answer(*context, "EnrollmentService.Enroll",
                issued.ok() ? issued->identity.worker : "nobody", issued,
                response);
}

grpc::Status EnrollmentServiceImpl::Renew(grpc::ServerContext* context,
                                          const v1::RenewRequest* request,
                                          v1::Enrollment* response) {
  const auto caller =
      CallerOf(*security_, "/deltapipe.v1.EnrollmentService/Renew", *context);
  if (!caller.ok()) return ToGrpcStatus(caller.status());
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) {
    return Answer(*context, "EnrollmentService.Renew", caller->worker, fits,
                  response);
  }
  return Answer(*context, "EnrollmentService.Renew", caller->worker,
                security_->Renew({security_->cluster(), caller->worker},
                                 request->signing_request()),
                response);
}

grpc::Status EnrollmentServiceImpl::Answer(
    const grpc::ServerContext& context, const std::string& what,
    const std::string& who, const absl::StatusOr<IssuedCertificate>& issued,
    v1::Enrollment* response) {
  AuditEntry entry;
  entry.who = who;
  entry.from = PeerHost(context.peer());
  entry.what = what;
  entry.result = absl::StatusCodeToString(issued.status().code());
  entry.reason = std::string(issued.status().message());
  entry.is_refusal = !issued.ok();
  security_->audit()->Add(entry);
  if (!issued.ok()) {
    LOG_WARNING << "refused " << what << " from " << entry.from << ": "
                << entry.reason;
    return ToGrpcStatus(issued.status());
  }
  response->set_worker_id(issued->identity.worker);
  response->set_certificate(issued->certificate_pem);
  response->set_authority(issued->authority_pem);
  response->set_expire_time_millis(issued->expire_millis);
  response->set_lifetime_millis(issued->lifetime_millis);
  return grpc::Status::OK;
}

}  // namespace deltapipe
