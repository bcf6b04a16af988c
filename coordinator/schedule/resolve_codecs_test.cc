#include "coordinator/schedule/resolve_codecs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compression/codec_registry.h"
#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

CodecFacts TextFacts() {
  CodecFacts facts;
  facts.boundary_elements = {128 * 128};
  facts.train_samples = 4'453;
  facts.free_bytes = {INT64_MAX, INT64_MAX};
  return facts;
}

TEST(ResolveCodecsTest, SamplesThatComeBackGetDeltas) {
  const auto codecs = ResolveCodecs(TestingTextSpec(), TextFacts());

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "delta(int(4),first=int(8))");
  EXPECT_EQ(codecs->activation_gradients, "int(8,round=stochastic)");
  EXPECT_EQ(codecs->gradients, "sign(block=0)");
  // bf16 records of one replica's half of the samples.
  EXPECT_NEAR(codecs->upstream_state_bytes[0], 2'227 * 128 * 128 * 2,
              2'227 * 64);
  EXPECT_THAT(codecs->notes,
              Contains(HasSubstr("each sample is seen 7.19 times")));
}

TEST(ResolveCodecsTest, OneEpochGetsNoState) {
  CodecFacts facts = TextFacts();
  facts.train_samples = 20'000;

  const auto codecs = ResolveCodecs(TestingTextSpec(), facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_EQ(codecs->upstream_state_bytes[0], 0);
  EXPECT_THAT(codecs->notes,
              Contains(HasSubstr("seen 1.6 times, too few for deltas")));
}

TEST(ResolveCodecsTest, ExactlyTwoVisitsPay) {
  CodecFacts facts = TextFacts();
  facts.train_samples = 16'000;
  EXPECT_EQ(ResolveCodecs(TestingTextSpec(), facts)->activations,
            kDeltaActivationCodec);
  facts.train_samples = 16'001;
  EXPECT_EQ(ResolveCodecs(TestingTextSpec(), facts)->activations,
            kStatelessActivationCodec);
}

TEST(ResolveCodecsTest, UnknownSampleCountGetsNoStateAndSaysSo) {
  CodecFacts facts = TextFacts();
  facts.train_samples = 0;

  const auto codecs = ResolveCodecs(TestingTextSpec(), facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_THAT(codecs->notes, Contains(HasSubstr("is not known")));
}

TEST(ResolveCodecsTest, StateThatDoesNotFitIsGivenUpWithTheBytes) {
  CodecFacts facts = TextFacts();
  facts.free_bytes = {200'000'000, 50'000'000};

  const auto codecs = ResolveCodecs(TestingTextSpec(), facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_THAT(codecs->notes,
              Contains(HasSubstr("delta state of 73 MB on stage 1 exceeds the "
                                 "50 MB")));
}

TEST(ResolveCodecsTest, MiddleStageHoldsTheStateOfBothBoundaries) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_parallel()->set_stages(3);
  CodecFacts facts = TextFacts();
  facts.boundary_elements = {128 * 128, 128 * 128};
  facts.free_bytes = {100'000'000, 100'000'000, 100'000'000};

  const auto codecs = ResolveCodecs(spec, facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_THAT(codecs->notes, Contains(HasSubstr("of 146 MB on stage 1")));
}

TEST(ResolveCodecsTest, StateCapBelowTheStateMeansNoDeltas) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_state_memory("10MB");

  const auto codecs = ResolveCodecs(spec, TextFacts());

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_THAT(codecs->notes,
              Contains(HasSubstr("exceeds compression.state_memory, 10 MB")));
}

TEST(ResolveCodecsTest, OneStageSendsNoActivations) {
  CodecFacts facts;
  facts.train_samples = 100;
  facts.free_bytes = {INT64_MAX};

  const auto codecs = ResolveCodecs(TestingTextSpec(), facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "none");
  EXPECT_EQ(codecs->activation_gradients, "none");
  EXPECT_THAT(codecs->upstream_state_bytes, IsEmpty());
}

TEST(ResolveCodecsTest, OtherOptimizersTakeFullGradients) {
  for (const char* kind : {"sgd", "adamw", "lamb"}) {
    v1::JobSpec spec = TestingTextSpec();
    spec.mutable_train()->mutable_optimizer()->set_kind(kind);
    EXPECT_EQ(ResolveCodecs(spec, TextFacts())->gradients, "none");
  }
}

TEST(ResolveCodecsTest, WhatTheUserWroteStays) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("cast(bf16)");
  spec.mutable_compression()->set_activation_gradients("none");
  spec.mutable_compression()->set_gradients("identity");

  const auto codecs = ResolveCodecs(spec, TextFacts());

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "cast(bf16)");
  EXPECT_EQ(codecs->activation_gradients, "none");
  EXPECT_EQ(codecs->gradients, "identity");
  EXPECT_THAT(codecs->notes, IsEmpty());
  EXPECT_THAT(codecs->upstream_state_bytes, Each(0));
  EXPECT_THAT(codecs->downstream_state_bytes, Each(0));
}

TEST(ResolveCodecsTest, WrittenDeltasAreCountedEvenIfTheyDoNotPay) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("delta(int(2),first=int(8))");
  CodecFacts facts = TextFacts();
  facts.train_samples = 0;

  const auto codecs = ResolveCodecs(spec, facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  // No more records than visits: 1,000 steps of 16 samples.
  EXPECT_NEAR(codecs->upstream_state_bytes[0], 16'000 * 128 * 128 * 2,
              16'000 * 64);
}

// The plan said "state none" and the memory check passed.
TEST(ResolveCodecsTest, DeltasOnGradientsKeepRecordsAtBothEnds) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("int(4)");
  spec.mutable_compression()->set_activation_gradients(
      "delta(int(4),first=int(8))");

  const auto codecs = ResolveCodecs(spec, TextFacts());

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  const double records = 2'227 * 128 * 128 * 2;
  EXPECT_DOUBLE_EQ(codecs->upstream_state_bytes[0], records);
  EXPECT_DOUBLE_EQ(codecs->downstream_state_bytes[0], records);
}

TEST(ResolveCodecsTest, ResidualsAreTheSendersAlone) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("ef(int(4))");
  const double residuals = 2'227 * 128 * 128 * 4;

  const auto forward = ResolveCodecs(spec, TextFacts());
  spec.mutable_compression()->set_activations("int(4)");
  spec.mutable_compression()->set_activation_gradients("ef(int(4))");
  const auto backward = ResolveCodecs(spec, TextFacts());

  ASSERT_TRUE(forward.ok()) << forward.status();
  ASSERT_TRUE(backward.ok()) << backward.status();
  EXPECT_DOUBLE_EQ(forward->upstream_state_bytes[0], residuals);
  EXPECT_DOUBLE_EQ(forward->downstream_state_bytes[0], 0);
  EXPECT_DOUBLE_EQ(backward->upstream_state_bytes[0], 0);
  EXPECT_DOUBLE_EQ(backward->downstream_state_bytes[0], residuals);
}

TEST(ResolveCodecsTest, WrittenDeltasKeepNoMoreThanTheCap) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("delta(int(4),first=int(8))");
  spec.mutable_compression()->set_activation_gradients("ef(int(4))");
  spec.mutable_compression()->set_state_memory("10MB");

  const auto codecs = ResolveCodecs(spec, TextFacts());

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_DOUBLE_EQ(codecs->upstream_state_bytes[0], 10e6);
  EXPECT_DOUBLE_EQ(codecs->downstream_state_bytes[0], 20e6);  // each direction
}

TEST(ResolveCodecsTest, StateOfGradientsLeavesLessRoomForDeltas) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activation_gradients("delta(int(4))");
  CodecFacts facts = TextFacts();
  facts.free_bytes = {100'000'000, 200'000'000};

  const auto codecs = ResolveCodecs(spec, facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_THAT(codecs->notes,
              Contains(HasSubstr("delta state of 73 MB on stage 0")));
}

TEST(ResolveCodecsTest, CodecTypoNamesItsField) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("intt(4)");

  const auto codecs = ResolveCodecs(spec, TextFacts());

  EXPECT_EQ(codecs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(codecs.status().message()),
              HasSubstr("compression.activations: "));
  spec.mutable_compression()->set_activations("int(4)");
  spec.mutable_compression()->set_activation_gradients("intt(4)");
  EXPECT_THAT(std::string(ResolveCodecs(spec, TextFacts()).status().message()),
              HasSubstr("compression.activation_gradients: "));
}

TEST(TrainSamplesOfSpecTest, CountsWhatTheSpecTells) {
  EXPECT_EQ(TrainSamplesOfSpec(TestingGpt2XlSpec()), 32);
  EXPECT_EQ(TrainSamplesOfSpec(TestingTextSpec()), 570'000 / 128);
  v1::JobSpec unlimited = TestingTextSpec();
  unlimited.mutable_data()->set_limit("all");
  EXPECT_EQ(TrainSamplesOfSpec(unlimited), 0);
}

TEST(ResolveCodecsTest, ExtentsThatBoundariesShareAreFilledIn) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_compression()->set_activations("int(4,axis=column)");
  CodecFacts facts;
  facts.boundary_elements = {16 * 196, 16 * 196};
  facts.boundary_shapes = {{16, 196}, {16, 196}};

  const auto alike = ResolveCodecs(spec, facts);
  facts.boundary_elements[1] = 32 * 49;
  facts.boundary_shapes[1] = {32, 49};
  const auto different = ResolveCodecs(spec, facts);

  ASSERT_TRUE(alike.ok()) << alike.status();
  ASSERT_TRUE(different.ok()) << different.status();
  EXPECT_EQ(alike->activations,
            *BindTensorShape("int(4,axis=column)", {16, 196}));
  EXPECT_EQ(different->activations, "int(4,axis=column)");
}

TEST(ResolveCodecsTest, UnboundedViewsCallForAStatelessCodec) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_data()->set_views("unbounded");
  spec.mutable_compression()->set_activations("auto");
  CodecFacts facts;
  facts.boundary_elements = {1024};
  facts.train_samples = 100;

  const auto codecs = ResolveCodecs(spec, facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_THAT(
      codecs->notes,
      ::testing::Contains(::testing::HasSubstr("data.views is unbounded")));
}

TEST(ResolveCodecsTest, MixedSizesCallForAStatelessCodecOfNoShape) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_data()->set_sizes("28:0.5,14:0.5");
  spec.mutable_compression()->set_activations("auto");
  spec.mutable_compression()->set_activation_gradients("int(4,axis=column)");
  CodecFacts facts;
  facts.boundary_elements = {16 * 196};
  facts.boundary_shapes = {{16, 196}};
  facts.train_samples = 100;

  const auto codecs = ResolveCodecs(spec, facts);

  ASSERT_TRUE(codecs.ok()) << codecs.status();
  EXPECT_EQ(codecs->activations, "int(4)");
  EXPECT_EQ(codecs->activation_gradients, "int(4,axis=column)");
  EXPECT_THAT(codecs->notes,
              ::testing::Contains(::testing::HasSubstr("data.sizes brings")));
}

}  // namespace
}  // namespace deltapipe
