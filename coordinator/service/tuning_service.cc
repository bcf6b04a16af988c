#include "coordinator/service/tuning_service.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/rpc/get_tuning.h"
#include "coordinator/rpc/set_budget.h"
#include "coordinator/rpc/update_tuning.h"
#include "coordinator/service/message_size.h"
#include "coordinator/service/peer_host.h"
#include "coordinator/service/rich_status.h"

namespace deltapipe {
namespace {

constexpr std::chrono::seconds kLongestWait(60);

grpc::Status Answer(absl::StatusOr<v1::Tuning> result, v1::Tuning* response) {
  if (!result.ok()) return ToGrpcStatus(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

}  // namespace

std::string TuningServiceImpl::PeerName(const grpc::ServerContext& context) {
  const auto auth = context.auth_context();
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    const std::vector<grpc::string_ref> names = auth->GetPeerIdentity();
    if (!names.empty()) return std::string(names[0].data(), names[0].size());
  }
  return PeerHost(context.peer());
}

TuningCaller TuningServiceImpl::CallerOf(grpc::ServerContext* context) const {
  TuningCaller caller;
  caller.principal = principal_of_(*context);
  const auto now = std::chrono::system_clock::now();
  const auto left = std::max(context->deadline() - now,
                             std::chrono::system_clock::duration::zero());
  caller.deadline =
      Deadline::After(std::min<std::chrono::nanoseconds>(kLongestWait, left));
  caller.is_cancelled = [context] { return context->IsCancelled(); };
  return caller;
}

grpc::Status TuningServiceImpl::GetTuning(grpc::ServerContext*,
                                          const v1::GetTuningRequest* request,
                                          v1::Tuning* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  return Answer(deltapipe::GetTuning(control_, *request), response);
}

grpc::Status TuningServiceImpl::UpdateTuning(
    grpc::ServerContext* context, const v1::UpdateTuningRequest* request,
    v1::Tuning* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  return Answer(deltapipe::UpdateTuning(control_, *request, CallerOf(context)),
                response);
}

grpc::Status TuningServiceImpl::SetBudget(grpc::ServerContext* context,
                                          const v1::SetBudgetRequest* request,
                                          v1::Tuning* response) {
  const absl::Status fits = CheckMessageSize(*request);
  if (!fits.ok()) return ToGrpcStatus(fits);
  return Answer(deltapipe::SetBudget(control_, *request, CallerOf(context)),
                response);
}

}  // namespace deltapipe
