#include "coordinator/service/rpc_meter.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace deltapipe {
namespace {

/// "JobService.GetJob" of "/deltapipe.v1.JobService/GetJob".
std::string NameOf(absl::string_view path) {
  if (!absl::ConsumePrefix(&path, "/deltapipe.v1.")) return "other";
  return absl::StrReplaceAll(path, {{"/", "."}});
}

class Meter : public grpc::experimental::Interceptor {
 public:
  Meter(RpcCounts* counts, std::string method)
      : counts_(counts), method_(std::move(method)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      counts_->Add(method_,
                   absl::StatusCodeToString(static_cast<absl::StatusCode>(
                       batch->GetSendStatus().error_code())));
    }
    batch->Proceed();
  }

 private:
  RpcCounts* const counts_;
  const std::string method_;
};

class MeterFactory
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit MeterFactory(RpcCounts* counts) : counts_(counts) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* rpc) override {
    return new Meter(counts_, NameOf(rpc->method()));  // gRPC owns it
  }

 private:
  RpcCounts* const counts_;
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>
MakeRpcMeter(RpcCounts* counts) {
  return std::make_unique<MeterFactory>(counts);
}

}  // namespace deltapipe
