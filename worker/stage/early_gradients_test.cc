// What a stage says of its gradients while its last backward runs.
#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"
#include "worker/stage/testing/stage_pipeline.h"

namespace deltapipe {
namespace {

constexpr int64_t kSamples = 2;

v1::JobSpec Spec(const std::string& kind, const std::string& policy,
                 const std::string& precision = "fp32") {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind == "tied" ? "gpt" : kind);
  spec.mutable_model()->set_tied(kind == "tied" ? "on" : "off");
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(16);
  spec.mutable_model()->set_heads(2);
  spec.mutable_model()->set_context(8);
  spec.mutable_train()->set_microbatch(kSamples);
  spec.mutable_train()->set_precision(precision);
  spec.mutable_compression()->set_saved_activations(policy);
  spec.mutable_compression()->set_saved_error_limit(0.5);
  return spec;
}

/// Copies what a stage says is final when it says so.
class Witness {
 public:
  explicit Witness(Stage* stage) : stage_(stage) {
    for (const ElementRange& range : stage->gradient_order()) {
      for (int64_t i = range.begin; i < range.end; ++i) {
        indices_.push_back(static_cast<size_t>(i));
      }
    }
    EXPECT_EQ(indices_.size(), stage->gradients().size());
  }

  bool Watch() {
    return stage_->WatchNextBackward([this](int64_t n) {
      EXPECT_GT(n, static_cast<int64_t>(copies_.size()));
      ASSERT_LE(n, static_cast<int64_t>(indices_.size()));
      ++num_calls_;
      while (static_cast<int64_t>(copies_.size()) < n) {
        copies_.push_back(stage_->gradients()[indices_[copies_.size()]]);
      }
    });
  }

  /// Everything was told, in as many calls or more, and has not changed since.
  void ExpectAll(int min_calls) {
    EXPECT_EQ(copies_.size(), indices_.size());
    ExpectFinal(min_calls);
  }
  /// The same of all but the last elements.
  void ExpectAllButTheLast(int min_calls) {
    EXPECT_LT(copies_.size(), indices_.size());
    ExpectFinal(min_calls);
  }
  float& last_of_order() { return stage_->gradients()[indices_.back()]; }
  const std::vector<float>& copies() const { return copies_; }
  int num_calls() const { return num_calls_; }

 private:
  void ExpectFinal(int min_calls) {
    EXPECT_GE(num_calls_, min_calls);
    for (size_t i = 0; i < copies_.size(); ++i) {
      ASSERT_EQ(copies_[i], stage_->gradients()[indices_[i]]) << i;
    }
  }

  Stage* const stage_;
  std::vector<size_t> indices_;
  std::vector<float> copies_;
  int num_calls_ = 0;
};

using Case = std::tuple<std::string, std::string>;  // model, policy

class EarlyGradientsModelTest : public ::testing::TestWithParam<Case> {};

TEST_P(EarlyGradientsModelTest, WhatIsToldIsFinalAndAllIsTold) {
  const auto& [kind, policy] = GetParam();
  for (const int num_stages : {1, 2}) {
    if (kind == "tied" && num_stages > 1) continue;
    SCOPED_TRACE(num_stages);
    v1::JobSpec spec = Spec(kind, policy);
    spec.mutable_compression()->set_saved_probe_every(1);
    StagePipeline pipeline(spec, num_stages, "cpu", kSamples);
    StagePipeline unwatched(spec, num_stages, "cpu", kSamples);
    for (StagePipeline* each : {&pipeline, &unwatched}) each->Run(0);
    std::vector<Witness> witnesses;
    for (size_t i = 0; i < pipeline.size(); ++i) {
      witnesses.emplace_back(&pipeline.stage(i));
    }
    for (Witness& witness : witnesses) EXPECT_TRUE(witness.Watch());

    for (StagePipeline* each : {&pipeline, &unwatched}) each->Run(7);

    // Layers, and embedding or head.
    for (Witness& witness : witnesses) witness.ExpectAll(4 / num_stages + 1);
    EXPECT_EQ(pipeline.Gradients(), unwatched.Gradients());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, EarlyGradientsModelTest,
    ::testing::Combine(::testing::Values("gpt", "tied", "mlp"),
                       ::testing::Values("none", "recompute(every=1)",
                                         "recompute(every=3)", "actnn(bits=4)",
                                         "lean(none)", "fixed(int(8))")));

TEST(EarlyGradientsOfImagesTest, WhatIsToldIsFinalAndAllIsTold) {
  v1::JobSpec spec = Spec("resnet", "none");
  spec.mutable_model()->set_layers(8);
  auto stage = MakeTorchStage(spec, 0, 8, "cpu").value();
  const SampleInput sample(spec.model(), kSamples);
  Witness witness(stage.get());
  StageOutput output;
  ASSERT_TRUE(stage->Forward(sample.input(), &output).ok());
  ASSERT_TRUE(witness.Watch());

  ASSERT_TRUE(stage->Backward(0, TensorRef()).ok());

  witness.ExpectAll(8);
}

TEST(EarlyGradientsTest, OneBackwardIsWatchedAndNoOther) {
  StagePipeline pipeline(Spec("mlp", "none"), 1, "cpu", kSamples);
  Witness witness(&pipeline.stage(0));
  ASSERT_TRUE(witness.Watch());
  pipeline.Run(0);
  const int num_calls = witness.num_calls();

  pipeline.Run(7);

  EXPECT_EQ(witness.num_calls(), num_calls);
}

TEST(EarlyGradientsTest, ABackwardThatFailsIsWatchedNoMore) {
  StagePipeline pipeline(Spec("mlp", "none"), 1, "cpu", kSamples);
  Witness witness(&pipeline.stage(0));
  ASSERT_TRUE(witness.Watch());
  ASSERT_FALSE(pipeline.stage(0).Backward(3, TensorRef()).ok());

  pipeline.Run(0);

  EXPECT_EQ(witness.num_calls(), 0);
}

/// Precision, policy, gradient scale.
using HalfCase = std::tuple<std::string, std::string, float>;

class EarlyGradientsOfSixteenBitsTest
    : public ::testing::TestWithParam<HalfCase> {
 protected:
  v1::JobSpec HalfSpec(const std::string& kind) const {
    v1::JobSpec spec = Spec(kind, std::get<1>(GetParam()), precision());
    spec.mutable_compression()->set_saved_probe_every(1);
    return spec;
  }
  std::string precision() const { return std::get<0>(GetParam()); }
  float scale() const { return std::get<2>(GetParam()); }
};

TEST_P(EarlyGradientsOfSixteenBitsTest, AreToldAsTheyAreWithoutAWatch) {
  for (const auto& [kind, num_stages] :
       {std::make_pair("gpt", 1), std::make_pair("tied", 1),
        std::make_pair("gpt", 2), std::make_pair("mlp", 2)}) {
    SCOPED_TRACE(testing::Message() << kind << ", " << num_stages);
    StagePipeline pipeline(HalfSpec(kind), num_stages, "cpu", kSamples);
    StagePipeline unwatched(HalfSpec(kind), num_stages, "cpu", kSamples);
    for (StagePipeline* each : {&pipeline, &unwatched}) each->Run(0, scale());
    std::vector<Witness> witnesses;
    for (size_t i = 0; i < pipeline.size(); ++i) {
      witnesses.emplace_back(&pipeline.stage(i));
    }
    for (Witness& witness : witnesses) EXPECT_TRUE(witness.Watch());

    for (StagePipeline* each : {&pipeline, &unwatched}) each->Run(7, scale());

    witnesses[0].ExpectAll(4 / num_stages + 1);
    // A mark of its input's gradient may follow.
    if (num_stages > 1) {
      precision() == "fp16" ? witnesses[1].ExpectAllButTheLast(4 / num_stages)
                            : witnesses[1].ExpectAll(4 / num_stages + 1);
    }
    EXPECT_EQ(pipeline.Gradients(), unwatched.Gradients());
  }
}

TEST_P(EarlyGradientsOfSixteenBitsTest, AreTheSumOfThoseOfTheMicrobatches) {
  StagePipeline pipeline(HalfSpec("gpt"), 2, "cpu", kSamples);
  pipeline.Run(0, scale());
  const std::vector<float> first = pipeline.Gradients();
  pipeline.Forget();
  pipeline.Run(7, scale());
  const std::vector<float> second = pipeline.Gradients();
  pipeline.Forget();
  Witness witness(&pipeline.stage(0));

  pipeline.Run(0, scale());
  ASSERT_TRUE(witness.Watch());
  pipeline.Run(7, scale());

  const std::vector<float> sum = pipeline.Gradients();
  for (size_t i = 0; i < sum.size(); ++i) {
    // What is divided by another scale is rounded once or twice.
    const float expected = first[i] + second[i];
    const float tolerance =
        scale() == 1000 ? 1e-6f * (std::fabs(first[i]) + std::fabs(second[i]))
                        : 0.0f;
    ASSERT_NEAR(sum[i], expected, tolerance) << i;
  }
}

// Of the scales one is no power of two.
INSTANTIATE_TEST_SUITE_P(
    Precisions, EarlyGradientsOfSixteenBitsTest,
    ::testing::Values(HalfCase{"bf16", "none", 1.0f},
                      HalfCase{"bf16", "recompute(every=1)", 1.0f},
                      HalfCase{"fp16", "none", 1024.0f},
                      HalfCase{"fp16", "recompute(every=3)", 1000.0f},
                      HalfCase{"fp16", "fixed(int(8))", 1000.0f}),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param), "_", info.index);
    });

/// Fills the weights of matrices whose name ends so.
void FillWeights(const std::string& suffix, float value, Stage* stage) {
  for (const ParameterSegment& segment : stage->parameters().segments) {
    if (!absl::EndsWith(segment.name, suffix)) continue;
    for (int64_t i = 0; i < segment.num_elements; ++i) {
      stage->weights()[static_cast<size_t>(segment.offset + i)] = value;
    }
  }
  ASSERT_TRUE(stage->WeightsChanged().ok());
}

// The large matrix sees zeros on the way forward, and what positions add to
// gradients cancels out, but not on the way to the input.
TEST(EarlyGradientsTest, AnOverflowOfTheInputIsMarkedWhereNobodyWasTold) {
  const v1::JobSpec spec = Spec("mlp", "none", "fp16");
  auto stage = MakeTorchStage(spec, 1, 2, "cpu").value();
  FillWeights("expand.weight", 1000, stage.get());
  Witness witness(stage.get());
  const std::vector<uint64_t> keys(kSamples, 1);
  const size_t size = static_cast<size_t>(kSamples * stage->input_elements());
  const std::vector<float> zeros(size);
  std::vector<float> gradient(size);
  for (size_t i = 0; i < size; ++i) {
    gradient[i] = i / 16 % 2 == 0 ? 30000.0f : -30000.0f;
  }
  StageInput input;
  input.num_samples = kSamples;
  input.sample_keys = keys;
  input.activation = {zeros, nullptr};
  StageOutput output;
  ASSERT_TRUE(stage->Forward(input, &output).ok());
  ASSERT_TRUE(witness.Watch());

  const auto result = stage->Backward(0, {gradient, nullptr});

  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(std::isfinite(result->values[0]));
  EXPECT_TRUE(std::isnan(witness.last_of_order()));
  witness.ExpectAllButTheLast(1);
  for (const float told : witness.copies()) ASSERT_TRUE(std::isfinite(told));
}

}  // namespace
}  // namespace deltapipe
