#include "coordinator/schedule/pipeline_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/schedule/build_plan.h"
#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

PlanInputs TextInputs() {
  PlanInputs inputs;
  inputs.spec = TestingTextSpec();
  inputs.profile = TestingTextProfile();
  return inputs;
}

TEST(ModelOfPlanTest, TakesCostsAndBytesPerMicrobatch) {
  const PlanInputs inputs = TextInputs();
  const v1::Plan plan = BuildPlan(inputs).value().plan;

  const auto model = ModelOfPlan(plan, inputs.spec);

  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->stages.size(), 2);
  ASSERT_EQ(model->links.size(), 1);
  EXPECT_DOUBLE_EQ(model->stages[0].forward_seconds, 0.018);
  EXPECT_DOUBLE_EQ(model->stages[0].backward_seconds, 0.036);
  // One bit each way between two replicas, and two latencies.
  EXPECT_NEAR(model->stages[0].reduce_seconds, 55'200 * 8 / 1e8 + 0.020, 1e-4);
  EXPECT_DOUBLE_EQ(model->links[0].bits_per_second, 1e8);
  EXPECT_DOUBLE_EQ(model->links[0].latency_seconds, 0.010);
  EXPECT_DOUBLE_EQ(model->links[0].activation.bytes,
                   plan.links(0).activation_wire_bytes() / 4);
  EXPECT_DOUBLE_EQ(model->links[0].gradient.bytes,
                   plan.links(0).gradient_wire_bytes() / 4);
  EXPECT_GT(model->links[0].activation.encode_seconds, 0);
  EXPECT_DOUBLE_EQ(model->verdict_seconds, 0.010);
}

TEST(ModelOfPlanTest, FirstVisitsCarryMoreActivations) {
  const PlanInputs inputs = TextInputs();
  const v1::Plan plan = BuildPlan(inputs).value().plan;

  const auto model = ModelOfPlan(plan, inputs.spec, Visit::kFirst);

  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_DOUBLE_EQ(model->links[0].activation.bytes,
                   plan.links(0).first_visit_wire_bytes() / 4);
  EXPECT_DOUBLE_EQ(model->links[0].gradient.bytes,
                   plan.links(0).gradient_wire_bytes() / 4);
}

TEST(ModelOfPlanTest, WhatCannotBeReadIsRefused) {
  PlanInputs inputs = TextInputs();
  const v1::Plan plan = BuildPlan(inputs).value().plan;
  EXPECT_EQ(ModelOfPlan(v1::Plan(), inputs.spec).status().code(),
            absl::StatusCode::kInvalidArgument);

  inputs.spec.mutable_network()->mutable_emulate()->set_latency("10");
  EXPECT_THAT(std::string(ModelOfPlan(plan, inputs.spec).status().message()),
              HasSubstr("network.emulate: "));
}

}  // namespace
}  // namespace deltapipe
