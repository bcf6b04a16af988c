#include "coordinator/schedule/predict_traffic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/schedule/codec_speed.h"
#include "coordinator/schedule/testing_specs.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

TEST(LinkFactsOfTest, EmulatedLinksGoBeforeExpectedOnes) {
  v1::NetworkSpec network;
  network.mutable_expected()->set_bandwidth("1Gbit/s");
  network.mutable_expected()->set_latency("5ms");
  LinkFacts facts = LinkFactsOf(network).value();
  EXPECT_EQ(facts.bits_per_second, 1e9);
  EXPECT_DOUBLE_EQ(facts.latency_seconds, 0.005);

  network.mutable_emulate()->set_bandwidth("100Mbit/s");
  facts = LinkFactsOf(network).value();
  EXPECT_EQ(facts.bits_per_second, 1e8);
  EXPECT_DOUBLE_EQ(facts.latency_seconds, 0.005);
}

TEST(LinkFactsOfTest, NothingSaidMeansUnlimited) {
  v1::NetworkSpec network;
  network.mutable_emulate()->set_bandwidth("unlimited");
  network.mutable_emulate()->set_latency("0");

  const LinkFacts facts = LinkFactsOf(network).value();

  EXPECT_EQ(facts.bits_per_second, 0);
  EXPECT_EQ(facts.latency_seconds, 0);
}

TEST(LinkFactsOfTest, BadUnitsNameTheirField) {
  v1::NetworkSpec network;
  network.mutable_expected()->set_bandwidth("100mbps");

  EXPECT_THAT(std::string(LinkFactsOf(network).status().message()),
              HasSubstr("network.expected: "));
}

TEST(PredictBoundariesTest, BytesAreBitsPerElementAndScales) {
  std::vector<StageCost> stages(3);
  stages[0].output_elements = 1024 * 1600;
  stages[1].output_elements = 1024 * 1600;

  const auto links = PredictBoundaries(stages, "delta(int(4),first=int(8))",
                                       "int(8,round=stochastic)", 1, 32);

  ASSERT_TRUE(links.ok()) << links.status();
  ASSERT_EQ(links->size(), 2);
  const double elements = 32.0 * 1024 * 1600;
  const v1::LinkPlan& link = (*links)[1];
  EXPECT_EQ(link.boundary(), 1);
  EXPECT_DOUBLE_EQ(link.activation_raw_bytes(), 4 * elements);
  EXPECT_DOUBLE_EQ(link.gradient_raw_bytes(), 4 * elements);
  // One 8-bit scale per block of 64.
  EXPECT_NEAR(link.activation_wire_bytes(), elements * 4.125 / 8,
              0.001 * elements);
  EXPECT_NEAR(link.gradient_wire_bytes(), elements * 8.125 / 8,
              0.001 * elements);
  EXPECT_NEAR(link.first_visit_wire_bytes(), elements * 8.125 / 8,
              0.001 * elements);
}

// Two shapes, each with a codec of its own rows: 784 x 0.75 + 196 x 0.25.
TEST(PredictBoundariesTest, BytesOfMixedSizesAreTheirMean) {
  std::vector<StageCost> stages(2);
  stages[0].output_shape = {8, 784};
  stages[0].output_elements = 8 * 784;
  const std::string codec = "int(4,axis=column)";
  const auto full = PredictBoundaries(stages, codec, "none", 2, 6);
  stages[0].output_shape = {8, 196};
  stages[0].output_elements = 8 * 196;
  const auto small = PredictBoundaries(stages, codec, "none", 2, 6);
  stages[0].mixed_shapes = {{{8, 784}, 0.75}, {{8, 196}, 0.25}};

  const auto mixed = PredictBoundaries(stages, codec, "none", 2, 6);

  ASSERT_TRUE(mixed.ok()) << mixed.status();
  const v1::LinkPlan& link = (*mixed)[0];
  EXPECT_DOUBLE_EQ(link.activation_raw_bytes(), 4.0 * 8 * 637 * 2 * 6);
  EXPECT_DOUBLE_EQ(link.gradient_raw_bytes(), link.activation_raw_bytes());
  EXPECT_DOUBLE_EQ(link.activation_wire_bytes(),
                   0.75 * (*full)[0].activation_wire_bytes() +
                       0.25 * (*small)[0].activation_wire_bytes());
  EXPECT_DOUBLE_EQ(link.gradient_wire_bytes(),
                   0.75 * (*full)[0].gradient_wire_bytes() +
                       0.25 * (*small)[0].gradient_wire_bytes());
}

TEST(PredictBoundariesTest, CodecErrorsNameTheirField) {
  std::vector<StageCost> stages(2);
  stages[0].output_elements = 64;

  EXPECT_THAT(
      std::string(
          PredictBoundaries(stages, "int(9)", "none", 1, 1).status().message()),
      HasSubstr("compression.activations: "));
  EXPECT_THAT(
      std::string(
          PredictBoundaries(stages, "none", "int(9)", 1, 1).status().message()),
      HasSubstr("compression.activation_gradients: "));
}

TEST(PredictPlainSyncTest, RingSendsTwiceItsShareOfTheVector) {
  const LinkFacts link = {1e8, 0.010};

  const SyncTraffic sync = PredictPlainSync(1'000'000, 4, 4, link);

  EXPECT_NEAR(sync.bytes, 2 * 3.0 / 4 * 4e6, 6 * kFrameBytes);
  EXPECT_NEAR(sync.seconds, sync.bytes * 8 / 1e8 + 6 * 0.010, 1e-9);
}

TEST(PredictPlainSyncTest, OneReplicaSendsNothing) {
  const SyncTraffic sync = PredictPlainSync(1'000'000, 1, 4, {1e8, 0.010});

  EXPECT_EQ(sync.bytes, 0);
  EXPECT_EQ(sync.seconds, 0);
}

TEST(PredictCompressedSyncTest, OneBitIsAtMostTwoPerParameter) {
  for (const int replicas : {2, 3, 4}) {
    const auto sync =
        PredictCompressedSync(5'000'000, replicas, "sign(block=0)", {1e8, 0});

    ASSERT_TRUE(sync.ok()) << sync.status();
    const double bits = 2.0 * (replicas - 1) / replicas;
    EXPECT_NEAR(sync->bytes * 8 / 5e6, bits, 0.01);
    // Peers have links of their own.
    EXPECT_NEAR(sync->seconds, sync->bytes * 8 / 1e8 / (replicas - 1), 1e-9);
  }
}

TEST(PredictCompressedSyncTest, IdentityCarriesTheWholeShards) {
  const auto sync = PredictCompressedSync(1'000'000, 2, "identity", {0, 0.01});

  ASSERT_TRUE(sync.ok()) << sync.status();
  EXPECT_NEAR(sync->bytes, 4e6, 3 * kFrameBytes);
  EXPECT_DOUBLE_EQ(sync->seconds, 0.02);
}

// 8 ranks on 2 nodes: a slice of a quarter crosses the network between two.
TEST(PredictSyncTest, ByNodesASliceCrossesTheNetwork) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_parallel()->set_replicas(8);
  const StageSync flat = PredictSync(spec, "sign(block=0)", 8'000'000).value();
  spec.mutable_parallel()->set_nodes(2);
  const StageSync nested =
      PredictSync(spec, "sign(block=0)", 8'000'000).value();

  // In the node: a quarter of the gradient in fp32 to each of three others, and
  // the packed result of the own slice.
  const double across = 2.0 * 2'000'000 / 2 / 8;
  const double inside = 3 * (4.0 * 2'000'000 + 2'000'000 / 8.0);
  EXPECT_NEAR(nested.compressed.bytes, across + inside, 0.01 * inside);
  EXPECT_NEAR(flat.compressed.bytes, 2.0 * 7 / 8 * 8'000'000 / 8, 2000);

  // In bf16 inside the node; the result comes as it crossed the network.
  spec.mutable_compression()->set_node_gradients("cast(bf16)");
  const StageSync half = PredictSync(spec, "sign(block=0)", 8'000'000).value();
  EXPECT_NEAR(nested.compressed.bytes - half.compressed.bytes,
              3 * 2.0 * 2'000'000, 1);
  EXPECT_NEAR(nested.plain.bytes - half.plain.bytes, 3 * 2.0 * 2'000'000, 1);
}

TEST(PredictSyncTest, OnlyOneBitLambChangesItsFormat) {
  v1::JobSpec spec = TestingTextSpec();
  StageSync sync = PredictSync(spec, "sign(block=0)", 1'000'000).value();
  EXPECT_GT(sync.plain.bytes, 30 * sync.compressed.bytes);

  spec.mutable_train()->mutable_optimizer()->set_kind("adamw");
  sync = PredictSync(spec, "none", 1'000'000).value();
  EXPECT_EQ(sync.plain.bytes, sync.compressed.bytes);

  const StageSync half = PredictSync(spec, "cast(bf16)", 1'000'000).value();
  EXPECT_NEAR(half.plain.bytes, sync.plain.bytes / 2, 2 * kFrameBytes);
}

// Of the two halves of a ring, the second one carries weights.
TEST(PredictSyncTest, SharedOutStateSendsWeightsInFullPrecision) {
  v1::JobSpec spec = TestingTextSpec();
  spec.mutable_train()->mutable_optimizer()->set_kind("adamw");
  const StageSync whole = PredictSync(spec, "none", 1'000'000).value();
  spec.mutable_train()->mutable_optimizer()->set_shard_state("on");

  const StageSync sharded = PredictSync(spec, "none", 1'000'000).value();
  const StageSync half = PredictSync(spec, "cast(bf16)", 1'000'000).value();

  EXPECT_EQ(sharded.plain.bytes, whole.plain.bytes);
  EXPECT_NEAR(half.plain.bytes, 0.75 * whole.plain.bytes, 2 * kFrameBytes);
}

TEST(PredictCodecSecondsTest, DeltasCostMoreThanTheirCodecAndCastsLess) {
  const CodecSeconds none = PredictCodecSeconds("none", 1e6);
  const CodecSeconds cast = PredictCodecSeconds("cast(bf16)", 1e6);
  const CodecSeconds quantized = PredictCodecSeconds("int(4)", 1e6);
  const CodecSeconds delta =
      PredictCodecSeconds("delta(int(4),first=int(8))", 1e6);

  EXPECT_GT(none.encode, 0);
  EXPECT_LT(none.encode, cast.encode);
  EXPECT_LT(cast.encode, quantized.encode);
  EXPECT_LT(quantized.encode, delta.encode);
  EXPECT_LT(quantized.decode, delta.decode);
  EXPECT_DOUBLE_EQ(PredictCodecSeconds("int(4)", 2e6).encode,
                   2 * quantized.encode);
}

}  // namespace
}  // namespace deltapipe
