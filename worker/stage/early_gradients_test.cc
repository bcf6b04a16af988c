// What a stage says of its gradients while its last backward runs.
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"
#include "worker/stage/testing/stage_pipeline.h"

namespace deltapipe {
namespace {

constexpr int64_t kSamples = 2;

v1::JobSpec Spec(const std::string& kind, const std::string& policy) {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind == "tied" ? "gpt" : kind);
  spec.mutable_model()->set_tied(kind == "tied" ? "on" : "off");
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(16);
  spec.mutable_model()->set_heads(2);
  spec.mutable_model()->set_context(8);
  spec.mutable_train()->set_microbatch(kSamples);
  spec.mutable_train()->set_precision("fp32");
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
    EXPECT_GE(num_calls_, min_calls);
    ASSERT_EQ(copies_.size(), indices_.size());
    for (size_t i = 0; i < copies_.size(); ++i) {
      ASSERT_EQ(copies_[i], stage_->gradients()[indices_[i]]) << i;
    }
  }
  int num_calls() const { return num_calls_; }

 private:
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

// Their micro-batches' gradients are added after the pass.
TEST(EarlyGradientsTest, StagesOfSixteenBitsCannotTell) {
  for (const char* precision : {"bf16", "fp16"}) {
    v1::JobSpec spec = Spec("gpt", "none");
    spec.mutable_train()->set_precision(precision);
    StagePipeline pipeline(spec, 1, "cpu", kSamples);
    Witness witness(&pipeline.stage(0));

    EXPECT_FALSE(witness.Watch());
    pipeline.Run(0);

    EXPECT_EQ(witness.num_calls(), 0);
  }
}

}  // namespace
}  // namespace deltapipe
