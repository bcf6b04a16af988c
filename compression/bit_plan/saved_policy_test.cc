#include "compression/bit_plan/saved_policy.h"

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/tensor_bits.h"
#include "compression/bit_plan/testing_policies.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const std::string& text) {
  const auto policy = MakeSavedPolicy(text);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(policy.status().message());
}

TEST(SavedPolicyTest, ErrorsNameTheColumnAndTheNearestName) {
  EXPECT_EQ(ErrorOf("fixd(int(4))"),
            "policy for saved activations \"fixd(int(4))\": column 1: unknown "
            "policy 'fixd': expected one of none, fixed, actnn, gact, comet, "
            "division, mesa, recompute, offload, auto, lean (did you mean "
            "'fixed'?)");
  EXPECT_THAT(ErrorOf("fixed(int(9))"),
              HasSubstr("\"fixed(int(9))\": column 11: bits: expected 1..8"));
  EXPECT_THAT(ErrorOf("fixed"), HasSubstr("expected codec (a codec without "
                                          "state), got no"));
  EXPECT_THAT(ErrorOf("fixed(delta(int(4)))"), HasSubstr("keeps state"));
  EXPECT_THAT(ErrorOf("gact(bit=4)"), HasSubstr("did you mean 'bits'"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("expected the name of a policy"));
  EXPECT_THAT(ErrorOf("auto(64MB)"),
              HasSubstr("column 6: budget: expected above 0"));
  EXPECT_THAT(ErrorOf("comet(target=1)"), HasSubstr("above 0, below 1"));
  EXPECT_THAT(ErrorOf(std::string(2000, 'x')),
              HasSubstr("at most 1024 characters"));
}

TEST(SavedPolicyTest, LevelsOfActnnThatSwapNameTheOffloadPolicy) {
  EXPECT_THAT(
      ErrorOf("actnn(bits=L4)"),
      HasSubstr("column 12: actnn: level L4 swaps to the host: expected "
                "L1, L2, L3 or bits, or the policy offload(codec)"));
}

TEST(SavedPolicyTest, FixedBindsTheShapeOfATensor) {
  const auto policy = Make("fixed(int(4,axis=column))");

  EXPECT_EQ(CodecFor(*policy, Tensor("a", {32, 100})),
            "int(4,axis=column,row=100)");
  EXPECT_EQ(CodecFor(*policy, Tensor("a", {32, 50})),
            "int(4,axis=column,row=50)");
}

TEST(SavedPolicyTest, RaisesSayWhatBecameOfTheTensors) {
  const auto policy = Make("fixed(int(2))");

  EXPECT_EQ(policy->Raise("gelu"), "gelu: from int(2) to 4 bits");
  EXPECT_EQ(policy->Treat(Tensor("a", {64, 64})).reason, "raised to 4 bits");
  EXPECT_EQ(policy->Raise("gelu"), "gelu: from 4 bits to 8 bits");
  EXPECT_EQ(policy->Raise("gelu"), "gelu: from 8 bits to as it is");
  EXPECT_EQ(policy->Raise("gelu"), "");
  EXPECT_EQ(Make("none")->Raise("gelu"), "");
}

SavedTensor Offering(SavedTensor tensor, SavedSubstitute substitute) {
  tensor.substitute = substitute;
  return tensor;
}

TEST(SavedPolicyTest, LeanTakesSubstitutesAndLeavesTheRestToTheOther) {
  const auto policy = Make("lean(fixed(int(8)))");
  const SavedTensor tensor = Tensor("a", {64, 64}, "addmm");

  const SavedTreatment derivative =
      policy->Treat(Offering(tensor, SavedSubstitute::kDerivative));
  EXPECT_TRUE(derivative.takes_substitute);
  EXPECT_THAT(derivative.codec->text(), StartsWith("int(2,block=256"));
  const SavedTreatment output =
      policy->Treat(Offering(tensor, SavedSubstitute::kOutput));
  EXPECT_TRUE(output.takes_substitute);
  EXPECT_EQ(output.codec, nullptr);
  EXPECT_EQ(CodecFor(*policy, tensor), "int(8)");
}

TEST(SavedPolicyTest, LeanRaisesDerivativesWithTheirTensors) {
  const auto policy = Make("lean(fixed(int(8)))");
  const SavedTensor tensor =
      Offering(Tensor("a", {64, 64}, "addmm"), SavedSubstitute::kDerivative);
  policy->Treat(tensor);

  EXPECT_EQ(policy->Raise("gelu"), "gelu: from int(8) to as it is");
  EXPECT_EQ(policy->Raise("gelu"), "");
  EXPECT_EQ(policy->Raise("addmm"),
            "addmm: from int(8) to as it is, from derivatives of 2 bits to "
            "those of 4 bits");
  EXPECT_THAT(CodecFor(*policy, tensor), StartsWith("int(4,"));
  const auto restored = Make(policy->text());
  ASSERT_TRUE(restored->Restore(policy->Save()).ok());
  EXPECT_EQ(restored->Raise("addmm"),
            "addmm: from derivatives of 4 bits to those of 8 bits");
  EXPECT_EQ(restored->Raise("addmm"),
            "addmm: from derivatives of 8 bits to the inputs");
  EXPECT_FALSE(restored->Treat(tensor).takes_substitute);
  EXPECT_EQ(restored->Raise("addmm"), "");
}

// What the derivatives take is taken from the budget of the rest.
TEST(SavedPolicyTest, LeanLeavesTheOtherPolicyTheRestOfABudget) {
  const SavedTensor saved = Tensor("a", {256, 1024}, "layer_norm");
  const SavedTensor kept =
      Offering(Tensor("b", {256, 1024}, "addmm"), SavedSubstitute::kDerivative);
  const std::vector<SavedMeasurement> measurements = {Measured(saved, 1),
                                                      Measured(kept, 1e9)};
  // 2^18 elements of 4 bytes: 8 bits and their metadata are 0.25 MiB and more.
  const auto alone = Make("auto(0.3)");
  ASSERT_TRUE(alone->Plan(1, {measurements.data(), 1}).ok());
  ASSERT_EQ(BitsOf(*alone, saved), 8);

  const auto lean = Make("lean(auto(0.3))");
  ASSERT_TRUE(lean->Plan(1, measurements).ok());

  EXPECT_EQ(BitsOf(*lean, saved), 4);
}

TEST(SavedPolicyTest, LeanOfLeanAndOfNothingKnownAreErrors) {
  EXPECT_EQ(ErrorOf("lean(lean(none))"),
            "policy for saved activations \"lean(lean(none))\": column 6: "
            "policy: expected any policy but lean, got lean");
  EXPECT_THAT(ErrorOf("lean(fixd(int(4)))"),
              HasSubstr("column 6: unknown policy 'fixd'"));
  EXPECT_THAT(ErrorOf("lean(fixed(int(9)))"), HasSubstr("column 16: bits"));
  EXPECT_THAT(ErrorOf("lean(none,derivative=9)"), HasSubstr("expected 1..8"));
  EXPECT_EQ(Make("lean(gact(bits=4), derivative=2)")->text(),
            "lean(" + Make("gact(bits=4)")->text() + ")");
}

TEST(SavedPolicyTest, WhatPackingWouldEnlargeStaysAsItIs) {
  SavedTensor tensor = Tensor("a", {10});

  const SavedTreatment treatment = Make("mesa(bits=8)")->Treat(tensor);
  tensor.element_bytes = 2;
  const SavedTreatment wide = Make("fixed(none)")->Treat(tensor);

  EXPECT_NE(treatment.codec, nullptr);
  EXPECT_EQ(wide.codec, nullptr);
  EXPECT_EQ(wide.reason, "as it is: none takes 40 bytes for its 20");
}

TEST(SavedPolicyTest, ActnnGivesBitsToTheSamplesOfATensor) {
  const auto policy = Make("actnn(bits=2)");

  // Of two tokens together, a group; of one image each; of too few rows.
  EXPECT_EQ(CodecFor(*policy, Tensor("a", {512, 128})),
            "mixed(bits=2,row=256)");
  EXPECT_EQ(CodecFor(*policy, Tensor("b", {16, 8, 14, 14})),
            "mixed(bits=2,row=1568)");
  EXPECT_THAT(CodecFor(*policy, Tensor("c", {4, 1000})), StartsWith("int(2,"));
  EXPECT_THAT(CodecFor(*policy, Tensor("d", {100000})), StartsWith("int(2,"));
}

TEST(SavedPolicyTest, PlannedBitsSumUpToTheAverage) {
  for (const char* text : {"actnn(bits=2)", "actnn(bits=4)", "gact(bits=4)"}) {
    for (uint32_t seed = 1; seed <= 20; ++seed) {
      SCOPED_TRACE(absl::StrCat(text, ", seed ", seed));
      std::mt19937 random(seed);
      std::normal_distribution<double> normal;
      std::vector<SavedMeasurement> measurements;
      double elements = 0;
      for (int i = 0; i < 30; ++i) {
        measurements.push_back(
            Measured(Tensor(absl::StrCat(i), {512, 64 << (random() % 4)}),
                     std::exp(3 * normal(random))));
        elements += measurements.back().tensor.num_elements;
      }
      const auto policy = Make(text);

      ASSERT_TRUE(policy->Plan(1, measurements).ok());

      double bits = 0;
      for (const SavedMeasurement& measurement : measurements) {
        bits += BitsOf(*policy, measurement.tensor) *
                static_cast<double>(measurement.tensor.num_elements);
      }
      const double average = std::atoi(
          std::string(text).substr(std::string(text).size() - 2).c_str());
      EXPECT_LE(bits / elements, average * (1 + 1e-9));
      EXPECT_GT(bits / elements, average * 0.9);
    }
  }
}

TEST(SavedPolicyTest, SensitiveTensorsGetMoreBits) {
  std::vector<SavedMeasurement> measurements;
  for (int i = 0; i < 5; ++i) {
    measurements.push_back(
        Measured(Tensor(absl::StrCat(i), {512, 128}), i == 4 ? 1e6 : 1));
  }
  for (const char* text : {"actnn(bits=4)", "gact", "auto(0.15)"}) {
    SCOPED_TRACE(text);
    const auto policy = Make(text);

    ASSERT_TRUE(policy->Plan(1, measurements).ok());

    EXPECT_LE(BitsOf(*policy, measurements[0].tensor), 4);
    EXPECT_EQ(BitsOf(*policy, measurements[4].tensor), 8);
  }
}

TEST(SavedPolicyTest, LevelOneOfActnnLeavesWhatNormalisationsRead) {
  std::vector<SavedMeasurement> measurements = {
      Measured(Tensor("a", {64, 16, 8, 8}), 1),
      Measured(Tensor("b", {64, 16, 8, 8}), 1)};
  measurements[1].reader = "native_batch_norm";
  const auto policy = Make("actnn(bits=L1)");

  ASSERT_TRUE(policy->Plan(1, measurements).ok());

  EXPECT_EQ(BitsOf(*policy, measurements[0].tensor), 4);
  EXPECT_EQ(BitsOf(*policy, measurements[1].tensor), 32);
}

TEST(SavedPolicyTest, GactAsksForProbesAndKeepsToItsSchedule) {
  EXPECT_EQ(Make("gact(every=250)")->measures().every_steps, 250);
  EXPECT_EQ(Make("gact")->measures().sensitivities,
            SavedMeasures::Sensitivities::kByTensor);
  EXPECT_EQ(Make("actnn")->measures().sensitivities,
            SavedMeasures::Sensitivities::kByOperator);
  EXPECT_EQ(Make("fixed(int(4))")->measures().every_steps, 0);
}

TEST(SavedPolicyTest, DivisionIsForImages) {
  const auto policy = Make("division(high=3)");

  EXPECT_EQ(CodecFor(*policy, Tensor("a", {2, 8, 28, 20})),
            "dual_precision(high_bits=3,height=28,width=20)");
  EXPECT_THAT(CodecFor(*policy, Tensor("b", {64, 512, 1, 1})),
              StartsWith("int(3,block=256,round=stochastic,levels=affine"));
  EXPECT_THAT(CodecFor(*policy, Tensor("c", {64, 512})), StartsWith("int(3,"));
  SavedTensor relu = Tensor("d", {2, 8, 28, 20});
  relu.keeps_zeros = true;
  EXPECT_THAT(CodecFor(*policy, relu), StartsWith("int(3,"));
  EXPECT_EQ(CodecFor(*Make("division(low=int8)"), Tensor("a", {2, 8, 28, 20})),
            "dual_precision(low_bits=8,height=28,width=20)");
}

TEST(SavedPolicyTest, MesaRemembersRangesOfHeads) {
  const auto codec = Make("mesa(head=32)")->Treat(Tensor("a", {64, 128})).codec;

  ASSERT_NE(codec, nullptr);
  EXPECT_EQ(codec->text(), "per_head(int(8,round=stochastic),head=32,row=128)");
  EXPECT_TRUE(codec->traits().has_memory);
}

TEST(SavedPolicyTest, RecomputeAndOffloadKeepTensorsInTheirOwnType) {
  const auto recompute = Make("recompute(every=3)");
  const auto offload = Make("offload(codec=int(8))");

  EXPECT_EQ(recompute->recompute_every(), 3);
  EXPECT_EQ(CodecFor(*recompute, Tensor("a", {64})), "as it is");
  EXPECT_TRUE(offload->Treat(Tensor("a", {64})).is_offloaded);
  EXPECT_EQ(CodecFor(*offload, Tensor("a", {64})), "int(8)");
  EXPECT_TRUE(Make("offload")->Treat(Tensor("a", {64})).is_offloaded);
}

// sigma = 0.01 * 0.2 over 0.32 * 0.005 * sqrt(8 * 14 * 14 * 0.5), three digits.
TEST(SavedPolicyTest, CometsBoundIsThePapers) {
  SavedMeasurement measurement =
      Measured(Tensor("a", {8, 16, 14, 14}), 8 * 16 * 14 * 14 / 256 * 100);
  measurement.gradient_mean_abs = 0.005;
  measurement.nonzero_share = 0.5;
  measurement.parameter_gradient_mean_abs = 0.2;
  const auto policy = Make("comet");

  ASSERT_TRUE(policy->Plan(1, {measurement}).ok());

  const double bound =
      0.01 * 0.2 / (0.32 * 0.005 * std::sqrt(8 * 14 * 14 * 0.5));
  EXPECT_EQ(
      CodecFor(*policy, measurement.tensor),
      absl::StrCat("error_bound(abs=", std::floor(bound * 1e4) / 1e4, ")"));
  EXPECT_EQ(policy->Raise("gelu"),
            "gelu: from within 0.0446 to within 0.01115 (1 planned tensor)");
}

TEST(SavedPolicyTest, CometsBoundIsAtMostAQuarterOfTheRange) {
  SavedMeasurement measurement = Measured(Tensor("a", {256}), 4);
  measurement.gradient_mean_abs = 1e-9;
  measurement.parameter_gradient_mean_abs = 1;
  const auto policy = Make("comet");

  ASSERT_TRUE(policy->Plan(1, {measurement}).ok());

  EXPECT_EQ(CodecFor(*policy, measurement.tensor), "error_bound(abs=0.5)");
}

// The prediction that PlanBudgetBits goes by is what the codecs write.
TEST(SavedPolicyTest, PredictedBytesAreThoseOfTheCodecs) {
  for (const int bits : {1, 2, 4, 8}) {
    const SavedMeasurement measurement = Measured(Tensor("a", {500, 100}), 1);
    const auto codec =
        MakeCodec(absl::StrCat("int(", bits,
                               ",block=256,round=stochastic,levels=affine,"
                               "scale=bf16)"))
            .value();

    EXPECT_NEAR(codec->MaxPayloadBytes(50000), PackedBytes(measurement, bits),
                2);
  }
}

}  // namespace
}  // namespace deltapipe
