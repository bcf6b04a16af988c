#include "coordinator/tuning/tuning_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/errors/error_details.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

class TuningStateTest : public ::testing::Test {
 protected:
  TuningStateTest() {
    spec_.set_name("text");
    spec_.mutable_data()->set_path("x.txt");
    spec_.mutable_train()->mutable_optimizer()->set_kind("onebit_lamb");
    spec_.mutable_parallel()->set_stages(4);
    FillDefaults(&spec_);
    plan_.set_num_stages(4);
    plan_.set_activation_codec("delta(int(4),first=int(8))");
    plan_.set_activation_gradient_codec("int(8,round=stochastic)");
    plan_.set_gradient_codec("sign(block=0)");
    start_ = InitialTuning("text-1", spec_, plan_);
  }

  absl::StatusOr<v1::Tuning> Apply() {
    return ApplyUpdate(start_, request_, spec_, plan_);
  }
  v1::BoundaryTuning* AddBoundary(int b) {
    v1::BoundaryTuning* boundary = request_.mutable_tuning()->add_boundaries();
    boundary->set_boundary(b);
    return boundary;
  }
  void AddPath(const char* path) {
    request_.mutable_update_mask()->add_paths(path);
  }
  /// Of the refusal that Apply is expected to be.
  std::vector<std::string> Violations() {
    std::vector<std::string> texts;
    const auto result = Apply();
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    for (const auto& violation : FieldViolationsOf(result.status())) {
      texts.push_back(violation.field + ": " + violation.description);
    }
    return texts;
  }

  v1::JobSpec spec_;
  v1::Plan plan_;
  v1::Tuning start_;
  v1::UpdateTuningRequest request_;
};

TEST_F(TuningStateTest, StartsWithThePlansCodecsOnAllBoundaries) {
  EXPECT_EQ(start_.revision(), 1u);
  ASSERT_EQ(start_.boundaries_size(), 3);
  EXPECT_EQ(start_.boundaries(2).boundary(), 2);
  EXPECT_EQ(start_.boundaries(2).activations(), "delta(int(4),first=int(8))");
  EXPECT_EQ(start_.boundaries(0).rate_limit(), "unlimited");
  EXPECT_EQ(start_.gradients(), "sign(block=0)");
  EXPECT_EQ(start_.saved_activations(), "none");
  EXPECT_EQ(start_.straggler_policy(), "none");
  EXPECT_EQ(start_.inject(), "none");
  EXPECT_EQ(start_.tuner().mode(), v1::Tuner::OFF);
  EXPECT_THAT(start_.etag(), StartsWith("1-"));
}

TEST_F(TuningStateTest, StartSpellsCodecsAsEveryRevisionDoes) {
  plan_.set_activation_gradient_codec("int(8)");
  plan_.set_activation_codec("int( bits = 4 )");
  start_ = InitialTuning("text-1", spec_, plan_);
  AddBoundary(0)->set_activation_gradients("int(8)");

  EXPECT_EQ(start_.boundaries(0).activations(), "int(4)");
  EXPECT_EQ(Apply()->revision(), 1u);
}

TEST_F(TuningStateTest, WithoutAMaskWhatIsSetChanges) {
  AddBoundary(1)->set_activations("int(2)");

  const auto next = Apply();

  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->revision(), 2u);
  EXPECT_NE(next->etag(), start_.etag());
  EXPECT_EQ(next->boundaries(1).activations(), "int(2)");
  const TuningDifference difference = DescribeChange(start_, *next);
  EXPECT_EQ(difference.old_value,
            "boundaries[1].activations=delta(int(4),first=int(8))");
  EXPECT_EQ(difference.new_value, "boundaries[1].activations=int(2)");
}

TEST_F(TuningStateTest, WhatMeansTheSameChangesNothing) {
  AddBoundary(0)->set_activations("delta( codec = int(4,block=64) )");
  request_.mutable_tuning()->mutable_boundaries(0)->set_activation_gradients(
      "int(8)");
  request_.mutable_tuning()->set_gradients("auto");

  const auto next = Apply();

  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->revision(), 1u);
  EXPECT_EQ(next->etag(), start_.etag());
}

TEST_F(TuningStateTest, TheSameRateInOtherUnitsChangesNothing) {
  start_.mutable_boundaries(0)->set_rate_limit("100Mbit/s");
  AddBoundary(0)->set_rate_limit("12.5MB/s");

  EXPECT_EQ(Apply()->boundaries(0).rate_limit(), "100Mbit/s");
}

TEST_F(TuningStateTest, StaleEtagIsAborted) {
  request_.mutable_tuning()->set_etag("0-stale");
  request_.mutable_tuning()->set_gradients("nonsense");

  const auto next = Apply();

  EXPECT_EQ(next.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(next.status())->reason, "ETAG_MISMATCH");
  EXPECT_EQ(ReasonOf(next.status())->metadata.at("etag"), start_.etag());
  EXPECT_THAT(std::string(next.status().message()),
              AllOf(HasSubstr(start_.etag()), HasSubstr("0-stale")));
}

TEST_F(TuningStateTest, OutputOnlyFieldsAreIgnored) {
  request_.mutable_tuning()->set_job_id("other");
  request_.mutable_tuning()->set_revision(9);
  request_.mutable_tuning()->set_effective_step(70);
  request_.mutable_tuning()->set_etag(start_.etag());
  AddPath("revision");

  EXPECT_EQ(Apply()->SerializeAsString(), start_.SerializeAsString());
}

TEST_F(TuningStateTest, MaskNamesWhatCounts) {
  AddBoundary(1)->set_activations("int(2)");
  request_.mutable_tuning()->mutable_tuner()->set_mode(v1::Tuner::APPLY);
  AddPath("tuner.mode");

  const auto next = Apply();

  EXPECT_EQ(DescribeChange(start_, *next).new_value, "tuner.mode=apply");
}

TEST_F(TuningStateTest, MaskedFieldThatIsNotSetGoesBackToTheStart) {
  start_.set_gradients("sign(block=2048)");
  start_.set_budget_bytes_per_step(5);
  start_.mutable_tuner()->set_mode(v1::Tuner::APPLY);
  for (const char* path : {"gradients", "budget_bytes_per_step", "tuner"}) {
    AddPath(path);
  }

  const auto next = Apply();

  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->gradients(), "sign(block=0)");
  EXPECT_EQ(next->budget_bytes_per_step(), 0);
  EXPECT_EQ(next->tuner().mode(), v1::Tuner::OFF);
}

TEST_F(TuningStateTest, SubPathOfBoundariesLeavesTheOthersAlone) {
  start_.mutable_boundaries(0)->set_rate_limit("1Mbit/s");
  start_.mutable_boundaries(1)->set_rate_limit("1Mbit/s");
  v1::BoundaryTuning* boundary = AddBoundary(1);
  boundary->set_activations("int(2)");
  boundary->set_rate_limit("2Mbit/s");
  AddPath("boundaries.*.rate_limit");

  const auto next = Apply();

  EXPECT_EQ(DescribeChange(start_, *next).new_value,
            "boundaries[1].rate_limit=2Mbit/s");
}

TEST_F(TuningStateTest, StarReplacesEverything) {
  const v1::Tuning pristine = start_;
  start_.mutable_boundaries(0)->set_activations("int(2)");
  start_.mutable_boundaries(1)->set_rate_limit("1Mbit/s");
  start_.mutable_tuner()->set_error_budget(0.5);
  AddBoundary(2)->set_activations("int(3)");
  AddPath("*");

  const auto next = Apply();

  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(DescribeChange(pristine, *next).new_value,
            "boundaries[2].activations=int(3)");
}

TEST_F(TuningStateTest, UnknownPathListsTheKnownOnes) {
  AddPath("gradient");
  AddPath("tuner.speed");

  EXPECT_THAT(
      Violations(),
      ElementsAre(AllOf(StartsWith("update_mask: unknown path 'gradient' (did "
                                   "you mean 'gradients'?); known: *, "),
                        HasSubstr("boundaries.*.rate_limit")),
                  HasSubstr("unknown path 'tuner.speed'")));
}

TEST_F(TuningStateTest, AllViolationsComeAtOnce) {
  v1::BoundaryTuning* first = AddBoundary(0);
  first->set_activations("int(9)");
  first->set_activation_gradients("inr(4)");
  first->set_rate_limit("5mbps");
  AddBoundary(3);
  AddBoundary(0);
  v1::Tuning* tuning = request_.mutable_tuning();
  tuning->set_gradients("delta(int(4))");
  tuning->set_saved_activations("zip");
  tuning->set_straggler_policy("drop-all");
  tuning->set_inject("slow:rank=9,x=2");
  tuning->set_budget_bytes_per_step(-1);
  tuning->mutable_tuner()->set_error_budget(2);
  tuning->mutable_tuner()->set_mode(static_cast<v1::Tuner::Mode>(7));

  EXPECT_THAT(
      Violations(),
      ElementsAre(
          HasSubstr("boundaries[0].activations: codec \"int(9)\": column 5"),
          HasSubstr("boundaries[0].activation_gradients: codec"),
          HasSubstr("boundaries[0].rate_limit: bandwidth '5mbps'"),
          "boundaries[3]: expected a boundary from 0 to 2",
          "boundaries[0]: expected once, got twice",
          HasSubstr("gradients: codec \"delta(int(4))\""),
          HasSubstr("saved_activations: policy for saved activations \"zip\""),
          HasSubstr("straggler_policy: expected "),
          HasSubstr("inject: injected latency names replica 9 of "),
          "budget_bytes_per_step: expected 0 (no budget) or more, got -1",
          "tuner.mode: expected OFF, PROPOSE or APPLY, got 7",
          HasSubstr("tuner.error_budget: expected a relative error")));
}

TEST_F(TuningStateTest, HostMemoryIsForWorkersWithADevice) {
  request_.mutable_tuning()->set_saved_activations("auto(8,offload=2)");
  spec_.mutable_parallel()->set_device("cpu");
  EXPECT_THAT(Violations(),
              ElementsAre(HasSubstr("saved_activations: expected no offload "
                                    "with parallel.device cpu")));

  spec_.mutable_parallel()->set_device("cuda");
  EXPECT_TRUE(Apply().ok()) << Apply().status();
}

TEST_F(TuningStateTest, OnlySomeOptimizersCompressGradients) {
  spec_.mutable_train()->mutable_optimizer()->set_kind("adamw");
  plan_.set_gradient_codec("none");
  request_.mutable_tuning()->set_gradients("sign");
  EXPECT_THAT(Violations(),
              ElementsAre(HasSubstr("onebit_lamb and zero_one_adam compress")));

  request_.mutable_tuning()->set_gradients("cast(bf16)");
  EXPECT_EQ(Apply()->gradients(), "cast(bf16)");
}

TEST_F(TuningStateTest, IdentityIsAGradientCodec) {
  request_.mutable_tuning()->set_gradients("identity");

  EXPECT_EQ(Apply()->gradients(), "identity");
}

TEST_F(TuningStateTest, TooLowARateIsRefused) {
  AddBoundary(0)->set_rate_limit("10bit/s");

  EXPECT_THAT(Violations(),
              ElementsAre("boundaries[0].rate_limit: expected at least 1 "
                          "kbit/s, or 'unlimited', got 10bit/s"));
}

TEST_F(TuningStateTest, OneStageHasNoBoundaries) {
  plan_.set_num_stages(1);
  start_ = InitialTuning("text-1", spec_, plan_);
  AddBoundary(0);

  EXPECT_THAT(start_.boundaries(), SizeIs(0));
  EXPECT_THAT(Violations(), ElementsAre(HasSubstr("no boundaries")));
}

TEST_F(TuningStateTest, EtagsDifferByRevisionAndContent) {
  v1::Tuning other = start_;
  other.set_revision(2);
  v1::Tuning changed = start_;
  changed.set_gradients("none");

  EXPECT_EQ(TuningEtag(start_), start_.etag());
  EXPECT_NE(TuningEtag(other), start_.etag());
  EXPECT_NE(TuningEtag(changed), start_.etag());
}

class MixedSizesTuningTest : public TuningStateTest {
 protected:
  MixedSizesTuningTest() {
    v1::JobSpec spec;
    spec.set_name("images");
    spec.mutable_model()->set_kind("resnet");
    spec.mutable_model()->set_layers(6);
    spec.mutable_model()->set_width(8);
    spec.mutable_data()->set_kind("fashion_mnist");
    spec.mutable_data()->set_path("images");
    spec.mutable_data()->set_sizes("28:0.5,14:0.5");
    spec.mutable_parallel()->set_stages(2);
    FillDefaults(&spec);
    spec_ = spec;
    plan_ = {};
    plan_.set_num_stages(2);
    plan_.add_stages()->set_end_layer(3);
    plan_.add_stages()->set_end_layer(6);
    plan_.set_activation_codec("int(4,axis=column)");
    plan_.set_activation_gradient_codec("int(8,round=stochastic)");
    plan_.set_gradient_codec("none");
    start_ = InitialTuning("images-1", spec_, plan_);
  }
};

TEST_F(MixedSizesTuningTest, CodecsKeepTheExtentsOpenThatDifferBySize) {
  spec_.mutable_data()->clear_sizes();
  const v1::Tuning of_one_size = InitialTuning("images-1", spec_, plan_);

  EXPECT_EQ(start_.boundaries(0).activations(), "int(4,axis=column)");
  EXPECT_THAT(of_one_size.boundaries(0).activations(), HasSubstr("196"));
}

TEST_F(MixedSizesTuningTest, CodecsThatRememberAreRefused) {
  v1::BoundaryTuning* boundary = AddBoundary(0);
  boundary->set_activations("delta(int(4))");
  boundary->set_activation_gradients("lowrank(4)");

  EXPECT_THAT(
      Violations(),
      ElementsAre(
          AllOf(
              StartsWith("boundaries[0].activations: expected a codec that "
                         "remembers nothing, such as int(8), with data.sizes"),
              HasSubstr("got 'delta(int(4))'")),
          StartsWith("boundaries[0].activation_gradients: expected a codec "
                     "that remembers nothing")));
}

}  // namespace
}  // namespace deltapipe
