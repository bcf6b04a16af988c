// What a stage says where tensors would be saved past its stash, or an input
// does not fit: the stage, the step, the micro-batch and the remedy.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/SavedTensorHooks.h"
#include "absl/cleanup/cleanup.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/engine.h"
#include "worker/saved_activations/hook_engine.h"
#include "worker/stage/microbatch_graph.h"
#include "worker/stage/models/model.h"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kSamples = 2;

v1::JobSpec Spec(const std::string& policy) {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind("gpt");
  spec.mutable_model()->set_layers(2);
  spec.mutable_model()->set_width(32);
  spec.mutable_model()->set_heads(2);
  spec.mutable_model()->set_context(32);
  spec.mutable_train()->set_microbatch(kSamples);
  spec.mutable_train()->set_precision("fp32");
  spec.mutable_compression()->set_saved_activations(policy);
  spec.mutable_compression()->set_saved_error_limit(0.5);
  return spec;
}

class SavedErrorsTest : public ::testing::Test {
 protected:
  void UsePolicy(const std::string& policy) {
    spec_ = Spec(policy);
    stage_ = MakeTorchStage(spec_, 0, 2, "cpu").value();
  }

  StageInput Input() const {
    StageInput input = sample_.input();
    input.stage = 3;
    input.step = 5;
    input.microbatch = 7;
    return input;
  }
  absl::Status Forward() {
    StageOutput output;
    return stage_->Forward(Input(), &output);
  }

  v1::JobSpec spec_ = Spec("none");
  const SampleInput sample_{spec_.model(), kSamples};
  std::unique_ptr<Stage> stage_;
};

TEST_F(SavedErrorsTest, AnotherEngineFailsTheStepThatBegins) {
  UsePolicy("fixed(int(4))");
  ASSERT_TRUE(Forward().ok());
  torch::autograd::set_default_engine_stub(
      &torch::autograd::Engine::get_base_engine);
  const absl::Cleanup back = [] { ReinstallHookEngineForTest(); };

  const absl::Status status = Forward();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("stage 3, step 5, micro-batch 7: "),
                    HasSubstr("another autograd engine was installed"),
                    HasSubstr("use saved_activations: none")));
}

TEST_F(SavedErrorsTest, AnotherEngineIsNoErrorWhereNothingIsPacked) {
  UsePolicy("none");
  torch::autograd::set_default_engine_stub(
      &torch::autograd::Engine::get_base_engine);
  const absl::Cleanup back = [] { ReinstallHookEngineForTest(); };

  EXPECT_TRUE(Forward().ok());
}

TEST_F(SavedErrorsTest, DisabledHooksFailTheForwardPass) {
  UsePolicy("fixed(int(4))");
  at::SavedTensorDefaultHooks::disable("a transform cannot do with them");
  const absl::Cleanup enable = [] { at::SavedTensorDefaultHooks::enable(); };

  const absl::Status status = Forward();

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("stage 3, step 5, micro-batch 7: "),
                    HasSubstr("hooks are disabled on this thread"),
                    HasSubstr("a transform cannot do with them")));
}

TEST_F(SavedErrorsTest, ABudgetThatIsTooSmallNamesTheStageAndOneThatWorks) {
  UsePolicy("auto(0.001)");
  StageInput input = Input();
  input.step = 0;
  input.microbatch = 0;
  StageOutput output;
  ASSERT_TRUE(stage_->Forward(input, &output).ok());
  ASSERT_TRUE(stage_->Backward(0, TensorRef()).ok());

  const absl::Status status = stage_->WeightsChanged();

  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("stage 3: compression.saved_activations: "),
                    HasSubstr("auto(0.001) is too small"),
                    HasSubstr("is the smallest budget that works")));
}

// A tensor of another size would be broadcast, or cut, without a word.
TEST_F(SavedErrorsTest, WhatHasAnotherShapeIsRefused) {
  UsePolicy("fixed(int(4))");
  StageInput input = Input();
  input.tokens = input.tokens.subspan(1);
  StageOutput output;
  const absl::Status of_input = stage_->Forward(input, &output);
  input = Input();
  input.targets = input.targets.subspan(0, 1);
  const absl::Status of_targets = stage_->Forward(input, &output);
  const auto first = MakeTorchStage(spec_, 0, 1, "cpu").value();
  input = Input();
  ASSERT_TRUE(first->Forward(input, &output).ok());
  const std::vector<float> one = {1};

  const auto of_gradient =
      first->Backward(input.microbatch, {one, nullptr, nullptr});

  EXPECT_EQ(of_input.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(of_input.message()),
              HasSubstr("input of 63 elements, expected 64"));
  EXPECT_EQ(of_targets.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(of_targets.message()),
              HasSubstr("targets of 1 elements, expected 64"));
  EXPECT_EQ(of_gradient.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(of_gradient.status().message()),
              HasSubstr("gradient of 1 elements, expected 2048"));
}

/// Turns hooks off, as a layer with an engine of its own would: in its second
/// part, or in both. May leave them disabled after the second one.
class HidingModel : public PartialModel {
 public:
  explicit HidingModel(bool hides_all, bool disables = false)
      : hides_all_(hides_all), disables_(disables) {}
  std::vector<std::string> PartNames() const override { return {"a", "b"}; }
  at::Tensor ForwardPart(int part, const at::Tensor& input) override {
    std::optional<HookSourceScope> off;
    if (hides_all_ || part == 1) off.emplace(nullptr);
    if (disables_ && part == 1) {
      at::SavedTensorDefaultHooks::disable("a transform cannot do with them");
    }
    return at::linear(input, weight_).tanh();
  }
  std::vector<int64_t> InputShape(int64_t samples, int64_t) const override {
    return {samples, 8};
  }
  std::vector<NamedParameter> Parameters() override { return {}; }

 private:
  const bool hides_all_;
  const bool disables_;
  const at::Tensor weight_ = at::ones({8, 8}).set_requires_grad(true);
};

/// The error of a forward pass of `model`.
absl::Status ErrorOf(HidingModel model) {
  ActivationStash stash(MakeSavedPolicy("fixed(int(4))").value(), 17);
  const std::vector<std::string> names = model.PartNames();
  MicrobatchGraphOptions options;
  options.model = &model;
  options.part_names = &names;
  options.stash = &stash;
  options.context = {3, 1, 2, 0};
  try {
    MicrobatchGraph(options).Forward(at::ones({4, 8}));
  } catch (const SavedActivationError& error) {
    return error.status();
  }
  return absl::OkStatus();
}

TEST(SavedErrorsOfGraphsTest, AForwardPassPastTheHooksIsAnError) {
  EXPECT_TRUE(ErrorOf(HidingModel(/*hides_all=*/false)).ok());

  const absl::Status status = ErrorOf(HidingModel(/*hides_all=*/true));

  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("saved activations of stage 1, step 3, micro-batch 2: "
                        "the forward pass of a to b saved no tensor through "
                        "the hooks"));
}

TEST(SavedErrorsOfGraphsTest, ALayerThatDisablesHooksIsNamed) {
  const absl::Cleanup enable = [] { at::SavedTensorDefaultHooks::enable(); };

  const absl::Status status = ErrorOf(HidingModel(false, /*disables=*/true));

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("saved activations of stage 1, step 3, "
                              "micro-batch 2: after b: "),
                    HasSubstr("hooks are disabled"),
                    HasSubstr("a transform cannot do with them")));
}

}  // namespace
}  // namespace deltapipe
