#include "coordinator/schedule/stage_costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(CutIntoStagesTest, LayersAreSummedPerStage) {
  const auto stages = CutIntoStages(TestingTextSpec(), TestingTextProfile());

  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 2);
  EXPECT_EQ((*stages)[0].first_layer, 0);
  EXPECT_EQ((*stages)[0].end_layer, 3);
  EXPECT_EQ((*stages)[1].first_layer, 3);
  EXPECT_EQ((*stages)[1].end_layer, 6);
  EXPECT_DOUBLE_EQ((*stages)[0].forward_seconds, 0.018);
  EXPECT_DOUBLE_EQ((*stages)[0].backward_seconds, 0.036);
  EXPECT_EQ((*stages)[0].parameters, 440'000);
  EXPECT_EQ((*stages)[0].saved_bytes, 8'500'000);
  EXPECT_EQ((*stages)[0].output_elements, 128 * 128);
}

TEST(CutIntoStagesTest, CostlyHeadGetsFewerLayers) {
  v1::StageProfile profile = TestingTextProfile();
  profile.mutable_layers(5)->set_forward_seconds(0.040);

  const auto stages = CutIntoStages(TestingTextSpec(), profile);

  ASSERT_TRUE(stages.ok()) << stages.status();
  EXPECT_EQ((*stages)[0].end_layer, 4);
}

TEST(CutIntoStagesTest, ThePartitionMayBeEvenOrGiven) {
  v1::StageProfile profile = TestingTextProfile();
  profile.mutable_layers(5)->set_forward_seconds(0.040);
  const auto end_of_first = [&](const std::string& partition) {
    v1::JobSpec spec = TestingTextSpec();
    spec.mutable_parallel()->set_partition(partition);
    const auto stages = CutIntoStages(spec, profile);
    EXPECT_TRUE(stages.ok()) << stages.status();
    EXPECT_EQ(stages->back().end_layer, 6);
    return stages->front().end_layer;
  };

  EXPECT_EQ(end_of_first("auto"), 4);
  EXPECT_EQ(end_of_first("even"), 3);
  EXPECT_EQ(end_of_first("5,1"), 5);
  EXPECT_EQ(end_of_first("1,5"), 1);
}

TEST(CutIntoStagesTest, APartitionOfAnotherModelIsRefused) {
  for (const char* partition : {"3,4", "6", "2,2,2", "2147483647,2147483647"}) {
    v1::JobSpec spec = TestingTextSpec();
    spec.mutable_parallel()->set_partition(partition);

    const auto stages = CutIntoStages(spec, TestingTextProfile());

    EXPECT_TRUE(absl::IsInvalidArgument(stages.status())) << partition;
    EXPECT_THAT(std::string(stages.status().message()),
                AllOf(HasSubstr("parallel.partition: "),
                      HasSubstr("the model has 6 in 2")));
  }
}

TEST(CutIntoStagesTest, SharedCoresSlowLayersDownButNotSleep) {
  const auto stages = CutIntoStages(TestingTextSpec(), TestingTextProfile(), 2);
  const auto synthetic =
      CutIntoStages(TestingGpt2XlSpec(), v1::StageProfile(), 2);

  ASSERT_TRUE(stages.ok()) << stages.status();
  EXPECT_EQ((*stages)[0].end_layer, 3);
  EXPECT_DOUBLE_EQ((*stages)[0].forward_seconds, 0.036);
  EXPECT_DOUBLE_EQ((*stages)[0].backward_seconds, 0.072);
  EXPECT_EQ((*stages)[0].saved_bytes, 8'500'000);
  ASSERT_TRUE(synthetic.ok()) << synthetic.status();
  EXPECT_DOUBLE_EQ((*synthetic)[0].forward_seconds, 0.045);
}

TEST(CutIntoStagesTest, SmallerImagesTakeLessTimeAndNoLessMemory) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_model()->set_kind("resnet");
  spec.mutable_model()->set_layers(6);
  spec.mutable_model()->set_width(8);
  const auto whole = CutIntoStages(spec, TestingTextProfile());
  spec.mutable_data()->set_sizes("28:0.5,14:0.5");

  const auto mixed = CutIntoStages(spec, TestingTextProfile());

  ASSERT_TRUE(mixed.ok()) << mixed.status();
  const StageCost& stage = (*mixed)[0];
  EXPECT_DOUBLE_EQ(stage.forward_seconds, 0.625 * (*whole)[0].forward_seconds);
  EXPECT_DOUBLE_EQ(stage.backward_seconds,
                   0.625 * (*whole)[0].backward_seconds);
  EXPECT_EQ(stage.saved_bytes, (*whole)[0].saved_bytes);
  EXPECT_EQ(stage.output_shape.columns, 14 * 14);
  ASSERT_EQ(stage.mixed_shapes.size(), 2);
  EXPECT_EQ(stage.mixed_shapes[1].shape.rows, 16);
  EXPECT_EQ(stage.mixed_shapes[1].shape.columns, 7 * 7);
  EXPECT_TRUE((*whole)[0].mixed_shapes.empty());
}

TEST(CutIntoStagesTest, SyntheticStagesNeedNoProfile) {
  const auto stages = CutIntoStages(TestingGpt2XlSpec(), v1::StageProfile());

  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 8);
  EXPECT_EQ((*stages)[7].first_layer, 7);
  EXPECT_EQ((*stages)[7].end_layer, 8);
  EXPECT_DOUBLE_EQ((*stages)[3].forward_seconds, 0.045);
  EXPECT_DOUBLE_EQ((*stages)[3].backward_seconds, 0.135);
  EXPECT_EQ((*stages)[3].output_elements, 1024 * 1600);
  EXPECT_EQ((*stages)[3].saved_bytes, 4 * 1024 * 1600);
}

TEST(CutIntoStagesTest, MoreStagesThanLayersAreRefused) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_parallel()->set_stages(7);

  const auto stages = CutIntoStages(spec, TestingTextProfile());

  EXPECT_EQ(stages.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(stages.status().message()),
              HasSubstr("more stages than layers: 7 stages, 6 layers"));
}

TEST(CutIntoStagesTest, BadDurationNamesItsField) {
  v1::JobSpec spec = TestingGpt2XlSpec();
  spec.mutable_model()->mutable_synthetic()->set_backward_time("135");

  EXPECT_THAT(std::string(CutIntoStages(spec, {}).status().message()),
              HasSubstr("model.synthetic.backward_time: "));
}

TEST(ParameterBytesTest, CountsTheOptimizersVectors) {
  v1::OptimizerSpec optimizer;
  optimizer.set_kind("sgd");
  EXPECT_EQ(ParameterBytes(optimizer, 1000, 1), 12'000);
  optimizer.set_kind("adamw");
  EXPECT_EQ(ParameterBytes(optimizer, 1000, 1), 16'000);
  optimizer.set_kind("onebit_lamb");
  EXPECT_EQ(ParameterBytes(optimizer, 1000, 2), 16'000 + 16'000 + 4'000);
}

TEST(PredictOptimizerBytesTest, StateThatIsSharedOutIsAShare) {
  v1::OptimizerSpec optimizer;
  optimizer.set_kind("adamw");
  EXPECT_EQ(PredictOptimizerBytes(optimizer, 1000, 4).kept, 8'000);
  EXPECT_EQ(PredictOptimizerBytes(optimizer, 1000, 4).sharded, 2'000);

  optimizer.set_shard_state("on");
  EXPECT_EQ(PredictOptimizerBytes(optimizer, 1000, 4).kept, 2'000);
  EXPECT_EQ(ParameterBytes(optimizer, 1000, 4), 8'000 + 2'000);

  optimizer.set_kind("lamb");
  EXPECT_EQ(PredictOptimizerBytes(optimizer, 1000, 4).sharded, 2'000);
  optimizer.set_kind("onebit_lamb");
  EXPECT_EQ(PredictOptimizerBytes(optimizer, 1000, 4).sharded, 0);
}

TEST(WorkingCopyBytesTest, HalfPrecisionHasWeightsAndGradientsOnceMore) {
  v1::TrainSpec train;
  EXPECT_EQ(WorkingCopyBytes(train, 1000), 0);
  train.set_precision("fp32");
  EXPECT_EQ(WorkingCopyBytes(train, 1000), 0);
  train.set_precision("bf16");
  EXPECT_EQ(WorkingCopyBytes(train, 1000), 4'000);
}

TEST(CutIntoStagesTest, WhatIsPackedCountsAsItIsKept) {
  v1::JobSpec spec = TestingTextSpec();
  const v1::StageProfile profile = TestingPackedProfile();
  for (const char* policy : {"", "none"}) {
    spec.mutable_compression()->set_saved_activations(policy);
    const auto stages = CutIntoStages(spec, profile);
    ASSERT_TRUE(stages.ok()) << stages.status();
    EXPECT_EQ((*stages)[1].saved_bytes, 8'500'000);
    EXPECT_TRUE((*stages)[1].saved.classes.empty());
  }
  spec.mutable_compression()->set_saved_activations("fixed(int(4))");

  const auto packed = CutIntoStages(spec, profile);
  const auto unknown = CutIntoStages(spec, TestingTextProfile());

  ASSERT_TRUE(packed.ok()) << packed.status();
  EXPECT_EQ((*packed)[1].saved_bytes, 1'182'000);
  EXPECT_EQ((*packed)[1].saved.raw_bytes, 8'600'000);
  EXPECT_EQ((*packed)[1].saved.stage, 1);
  ASSERT_TRUE(unknown.ok()) << unknown.status();
  EXPECT_EQ((*unknown)[1].saved_bytes, 8'500'000);
}

}  // namespace
}  // namespace deltapipe
