#include "coordinator/service/service_health.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "coordinator/service/reflection.h"
#include "proto/deltapipe/v1/tuning.grpc.pb.h"

namespace deltapipe {
namespace {

class ServiceHealthTest : public ::testing::Test {
 protected:
  void Start(bool has_reflection) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&service_);
    builder.SetOption(ReflectionOption(has_reflection));
    server_ = builder.BuildAndStart();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                   grpc::InsecureChannelCredentials());
  }
  /// Calls `method` with the bytes of a request; the bytes of the answer.
  grpc::Status Call(const std::string& method, const std::string& request,
                    std::string* response) {
    const grpc::Slice slice(request);
    grpc::ByteBuffer input(&slice, 1);
    grpc::ByteBuffer output;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(30));
    grpc::CompletionQueue queue;
    const auto call = grpc::GenericStub(channel_).PrepareUnaryCall(
        &context, method, input, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&output, &status, this);
    void* tag = nullptr;
    bool is_whole = false;
    EXPECT_TRUE(queue.Next(&tag, &is_whole));
    grpc::Slice whole;
    if (status.ok() && output.DumpToSingleSlice(&whole).ok()) {
      response->assign(reinterpret_cast<const char*>(whole.begin()),
                       whole.size());
    }
    return status;
  }
  /// "1" SERVING, "2" NOT_SERVING, or the status code's number.
  std::string HealthOf(const std::string& name) {
    std::string request;
    if (!name.empty()) {
      request = std::string("\x0a") + static_cast<char>(name.size()) + name;
    }
    std::string response;
    const grpc::Status status =
        Call("/grpc.health.v1.Health/Check", request, &response);
    if (!status.ok()) return "code " + std::to_string(status.error_code());
    return response.size() == 2 ? std::to_string(response[1]) : "0";
  }

  v1::TuningService::Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ServiceHealthTest, EachServiceIsServedAndThenNot) {
  Start(false);
  SetServing(server_.get(), true);
  for (const char* name :
       {"", "deltapipe.v1.JobService", "deltapipe.v1.TuningService",
        "deltapipe.v1.ControlService"}) {
    EXPECT_EQ(HealthOf(name), "1") << name;
  }
  EXPECT_EQ(HealthOf("deltapipe.v1.Nothing"), "code 5");

  SetServing(server_.get(), false);

  EXPECT_EQ(HealthOf("deltapipe.v1.TuningService"), "2");
  EXPECT_EQ(HealthOf(""), "2");
}

TEST_F(ServiceHealthTest, ReflectionIsThereOnlyWhenOffered) {
  const std::string method =
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  std::string response;
  Start(false);
  EXPECT_EQ(Call(method, "", &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);

  Start(true);

  // list_services = "*"
  ASSERT_TRUE(Call(method, "\x3a\x01*", &response).ok());
  EXPECT_NE(response.find("deltapipe.v1.TuningService"), std::string::npos);
}

}  // namespace
}  // namespace deltapipe
