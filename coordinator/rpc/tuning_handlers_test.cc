// The handlers of TuningService, on a fake job.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/errors/error_details.h"
#include "coordinator/rpc/fake_tuning_control.h"
#include "coordinator/rpc/get_tuning.h"
#include "coordinator/rpc/set_budget.h"
#include "coordinator/rpc/update_tuning.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

v1::JobSpec Spec() {
  v1::JobSpec spec;
  spec.set_name("text");
  FillDefaults(&spec);
  return spec;
}

v1::Plan TwoStages() {
  v1::Plan plan;
  plan.set_num_stages(2);
  plan.set_num_replicas(1);
  plan.set_num_microbatches(4);
  plan.set_microbatch_samples(1);
  plan.set_activation_codec("int(4)");
  plan.set_activation_gradient_codec("int(8)");
  plan.set_gradient_codec("none");
  v1::LinkPlan* link = plan.add_links();
  link->set_activation_raw_bytes(4e6);
  link->set_gradient_raw_bytes(4e6);
  return plan;
}

class TuningHandlersTest : public ::testing::Test {
 protected:
  TuningHandlersTest() : control_("text-1", Spec(), TwoStages()) {
    caller_.principal = "ann";
    update_.mutable_tuning()->set_job_id("text-1");
    budget_.set_job_id("text-1");
  }
  static std::vector<std::string> FieldsOf(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    std::vector<std::string> fields;
    for (const auto& violation : FieldViolationsOf(status)) {
      fields.push_back(violation.field);
    }
    return fields;
  }

  FakeTuningControl control_;
  TuningCaller caller_;
  v1::UpdateTuningRequest update_;
  v1::SetBudgetRequest budget_;
};

TEST_F(TuningHandlersTest, GetNeedsAJobThatThereIs) {
  v1::GetTuningRequest request;
  EXPECT_THAT(FieldsOf(GetTuning(&control_, request).status()),
              ElementsAre("job_id"));
  request.set_job_id("text-2");
  EXPECT_TRUE(absl::IsNotFound(GetTuning(&control_, request).status()));
  request.set_job_id("text-1");
  EXPECT_EQ(GetTuning(&control_, request)->boundaries_size(), 1);
}

TEST_F(TuningHandlersTest, UpdateNamesItsPrincipalAndFirstStep) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(2)");

  const auto tuning = UpdateTuning(&control_, update_, caller_);

  ASSERT_TRUE(tuning.ok()) << tuning.status();
  EXPECT_EQ(tuning->effective_step(), 10);
  EXPECT_THAT(control_.principals, ElementsAre("ann"));
}

TEST_F(TuningHandlersTest, ValidateOnlyChangesNothing) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(2)");
  update_.set_validate_only(true);

  EXPECT_EQ(UpdateTuning(&control_, update_, caller_)->revision(), 2u);
  EXPECT_EQ(control_.Get("text-1")->revision(), 1u);
  EXPECT_THAT(control_.principals, IsEmpty());
}

TEST_F(TuningHandlersTest, ARequestThatIsSentAgainChangesNothing) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(2)");
  update_.set_request_id("a");
  const auto first = UpdateTuning(&control_, update_, caller_);
  v1::UpdateTuningRequest other = update_;
  other.mutable_tuning()->mutable_boundaries(0)->set_activations("int(4)");
  other.set_request_id("b");
  ASSERT_TRUE(UpdateTuning(&control_, other, caller_).ok());

  const auto again = UpdateTuning(&control_, update_, caller_);

  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->SerializeAsString(), first->SerializeAsString());
  EXPECT_EQ(control_.Get("text-1")->revision(), 3u);
  EXPECT_THAT(control_.principals, ElementsAre("ann", "ann"));
}

TEST_F(TuningHandlersTest, AnIdStandsForOneRequest) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(2)");
  update_.set_request_id("a");
  ASSERT_TRUE(UpdateTuning(&control_, update_, caller_).ok());
  update_.mutable_tuning()->mutable_boundaries(0)->set_activations("int(8)");

  EXPECT_THAT(FieldsOf(UpdateTuning(&control_, update_, caller_).status()),
              ElementsAre("request_id"));
}

TEST_F(TuningHandlersTest, ValidatingUsesUpNoId) {
  update_.mutable_tuning()->add_boundaries()->set_activations("int(2)");
  update_.set_request_id("a");
  update_.set_validate_only(true);
  ASSERT_TRUE(UpdateTuning(&control_, update_, caller_).ok());
  update_.set_validate_only(false);

  EXPECT_TRUE(UpdateTuning(&control_, update_, caller_).ok());
  EXPECT_THAT(control_.principals, ElementsAre("ann"));
}

TEST_F(TuningHandlersTest, OversizeTextsAreRefusedAtOnce) {
  update_.mutable_tuning()->clear_job_id();
  update_.mutable_tuning()->set_gradients(std::string(2 << 20, 'x'));
  update_.set_request_id(std::string(300, 'x'));
  update_.set_reason(std::string(2000, 'x'));
  for (int i = 0; i < 200; ++i) update_.mutable_update_mask()->add_paths("x");

  EXPECT_THAT(FieldsOf(UpdateTuning(&control_, update_, caller_).status()),
              ElementsAre("tuning.job_id", "tuning", "request_id", "reason",
                          "update_mask"));
}

TEST_F(TuningHandlersTest, StaleEtagIsAborted) {
  update_.mutable_tuning()->set_etag("7-x");
  budget_.set_etag("7-x");

  EXPECT_TRUE(
      absl::IsAborted(UpdateTuning(&control_, update_, caller_).status()));
  EXPECT_TRUE(absl::IsAborted(SetBudget(&control_, budget_, caller_).status()));
}

TEST_F(TuningHandlersTest, BudgetChoosesBits) {
  budget_.set_bytes_per_step(550000);

  const auto tuning = SetBudget(&control_, budget_, caller_);

  ASSERT_TRUE(tuning.ok()) << tuning.status();
  EXPECT_EQ(tuning->budget_bytes_per_step(), 550000);
  EXPECT_NE(tuning->boundaries(0).activation_gradients(), "int(8)");
}

TEST_F(TuningHandlersTest, BadBudgetsAreRefused) {
  budget_.set_bytes_per_step(-5);
  budget_.set_reason(std::string(2000, 'x'));
  EXPECT_THAT(FieldsOf(SetBudget(&control_, budget_, caller_).status()),
              ElementsAre("bytes_per_step", "reason"));

  budget_.clear_reason();
  budget_.set_bytes_per_step(5);
  EXPECT_THAT(FieldsOf(SetBudget(&control_, budget_, caller_).status()),
              ElementsAre("budget_bytes_per_step"));
}

}  // namespace
}  // namespace deltapipe
