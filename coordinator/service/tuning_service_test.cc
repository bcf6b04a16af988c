// TuningService over a real loopback server, with a fake behind it.
#include "coordinator/service/tuning_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>

#include "coordinator/errors/error_details.h"
#include "coordinator/rpc/fake_tuning_control.h"
#include "coordinator/service/rich_status.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

v1::JobSpec Spec() {
  v1::JobSpec spec;
  spec.set_name("text");
  FillDefaults(&spec);
  return spec;
}

v1::Plan TwoStages() {
  v1::Plan plan;
  plan.set_num_stages(2);
  plan.set_activation_codec("int(4)");
  plan.set_activation_gradient_codec("int(8)");
  plan.set_gradient_codec("none");
  return plan;
}

class TuningServiceTest : public ::testing::Test {
 protected:
  TuningServiceTest()
      : control_("text-1", Spec(), TwoStages()), service_(&control_) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = v1::TuningService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                            grpc::InsecureChannelCredentials()));
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::seconds(30));
    update_.mutable_tuning()->set_job_id("text-1");
  }

  FakeTuningControl control_;
  TuningServiceImpl service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::TuningService::Stub> stub_;
  grpc::ClientContext context_;
  v1::UpdateTuningRequest update_;
  v1::Tuning tuning_;
};

TEST_F(TuningServiceTest, UpdateAnswersWithTheStepItHoldsFrom) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(2)");

  const grpc::Status status = stub_->UpdateTuning(&context_, update_, &tuning_);

  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(tuning_.effective_step(), 10);
  EXPECT_EQ(tuning_.boundaries(0).activations(), "int(2)");
  EXPECT_THAT(control_.principals, ElementsAre("127.0.0.1"));
}

TEST_F(TuningServiceTest, ViolationsArriveAsDetails) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(9)");
  update_.mutable_tuning()->set_gradients("sign");

  const absl::Status status =
      FromGrpcStatus(stub_->UpdateTuning(&context_, update_, &tuning_));

  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(ReasonOf(status)->reason, "INVALID_TUNING");
  EXPECT_EQ(FieldViolationsOf(status).size(), 2u);
  EXPECT_EQ(FieldViolationsOf(status)[0].field, "boundaries[0].activations");
}

TEST_F(TuningServiceTest, StaleEtagIsAbortedWithTheOneInForce) {
  update_.mutable_tuning()->set_etag("9-x");

  const absl::Status status =
      FromGrpcStatus(stub_->UpdateTuning(&context_, update_, &tuning_));

  EXPECT_TRUE(absl::IsAborted(status));
  EXPECT_EQ(ReasonOf(status)->metadata.at("etag"),
            control_.Get("text-1")->etag());
}

TEST_F(TuningServiceTest, GetAndSetBudgetAreServed) {
  v1::GetTuningRequest get;
  get.set_job_id("text-1");
  EXPECT_TRUE(stub_->GetTuning(&context_, get, &tuning_).ok());
  EXPECT_EQ(tuning_.revision(), 1u);

  grpc::ClientContext context;
  v1::SetBudgetRequest budget;
  budget.set_job_id("text-1");
  budget.set_bytes_per_step(-1);
  EXPECT_EQ(stub_->SetBudget(&context, budget, &tuning_).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace deltapipe
