#include "worker/stage/operators/layer_norm.h"

#include <memory>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/function.h"
#include "worker/saved_activations/activation_stash.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

constexpr double kEpsilon = 1e-5;
constexpr int64_t kWidth = 64;

std::unique_ptr<ActivationStash> Stash(const std::string& policy,
                                       const std::vector<at::Tensor>& weights) {
  auto made = MakeSavedPolicy(policy);
  EXPECT_TRUE(made.ok()) << made.status();
  auto stash = std::make_unique<ActivationStash>(std::move(*made), 17);
  stash->SetWeights(weights);
  return stash;
}

/// A norm and a matrix after it, whose input is another operator's result.
class LayerNormTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    leaf_ = at::randn({4, 16, kWidth}).mul_(3).requires_grad_();
    weight_ = at::rand({kWidth}).add_(0.5).requires_grad_();
    bias_ = at::randn({kWidth}).mul_(0.1).requires_grad_();
    matrix_ = at::randn({kWidth, kWidth}).requires_grad_();
    gradient_ = at::randn({4, 16, kWidth});
  }

  at::Tensor Forward(bool from_output = false) {
    const at::Tensor input = leaf_.add(1);
    const at::Tensor normed =
        from_output ? LayerNormFromOutput(input, weight_, bias_, kEpsilon)
                    : LayerNorm(input, weight_, bias_, kEpsilon);
    return at::linear(normed, matrix_);
  }

  std::vector<at::Tensor> Backward(const at::Tensor& output) {
    output.backward(gradient_);
    std::vector<at::Tensor> gradients;
    for (at::Tensor* tensor : {&leaf_, &weight_, &bias_, &matrix_}) {
      gradients.push_back(tensor->grad().clone());
      tensor->mutable_grad() = at::Tensor();
    }
    return gradients;
  }

  static double Distance(const at::Tensor& a, const at::Tensor& b) {
    return (a.sub(b).norm() / b.norm()).item<double>();
  }

  at::Tensor leaf_, weight_, bias_, matrix_, gradient_;
};

TEST_F(LayerNormTest, WithoutAStashItIsThatOfLibTorch) {
  const at::Tensor input = leaf_.add(1);
  const at::Tensor plain =
      at::layer_norm(input, {kWidth}, weight_, bias_, kEpsilon);

  const at::Tensor ours = LayerNorm(input, weight_, bias_, kEpsilon);

  EXPECT_TRUE(at::equal(ours, plain));
  EXPECT_EQ(ours.grad_fn()->name(), plain.grad_fn()->name());
}

TEST_F(LayerNormTest, FromItsOutputItHasTheSameValuesAndGradients) {
  const at::Tensor plain = Forward();
  const std::vector<at::Tensor> expected = Backward(plain);

  const at::Tensor ours = Forward(/*from_output=*/true);
  const std::vector<at::Tensor> gradients = Backward(ours);

  EXPECT_TRUE(at::equal(ours, plain));
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_LT(Distance(gradients[i], expected[i]), 1e-5) << i;
  }
}

TEST_F(LayerNormTest, GradientsIn16BitsAreThoseOfTheRoundedOutput) {
  const auto in_bf16 = [&](bool from_output) {
    const at::Tensor input = leaf_.add(1).to(at::kBFloat16);
    const at::Tensor weight = weight_.to(at::kBFloat16);
    const at::Tensor bias = bias_.to(at::kBFloat16);
    const at::Tensor normed =
        from_output ? LayerNormFromOutput(input, weight, bias, kEpsilon)
                    : LayerNorm(input, weight, bias, kEpsilon);
    normed.to(at::kFloat).mul(gradient_).sum().backward();
    const at::Tensor gradient = leaf_.grad().clone();
    leaf_.mutable_grad() = at::Tensor();
    return std::make_pair(normed, gradient);
  };
  const auto [plain, expected] = in_bf16(false);

  const auto [ours, gradient] = in_bf16(true);

  EXPECT_TRUE(at::equal(ours, plain));
  EXPECT_LT(Distance(gradient, expected), 0x1p-7);
}

TEST_F(LayerNormTest, InALeanStashOneTensorServesTheNormAndTheMatrix) {
  for (const char* policy : {"lean(none)", "none"}) {
    const bool is_lean = policy[0] == 'l';
    const auto stash = Stash(policy, {weight_, bias_, matrix_});
    const std::vector<at::Tensor> expected = Backward(Forward());
    at::Tensor output;
    {
      ActivationStash::Scope scope(stash.get(), {1, 0, 0, 5});
      stash->SetInput(leaf_);
      output = Forward();
    }
    const int64_t tensor = 4 * 16 * kWidth * 4;

    // With the row's deviation, and its mean where the input is kept.
    EXPECT_EQ(stash->live_bytes() - stash->TakeBytes().metadata,
              is_lean ? tensor + 4 * 16 * 4 : 2 * tensor + 2 * 4 * 16 * 4);
    const std::vector<at::Tensor> gradients = Backward(output);

    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LT(Distance(gradients[i], expected[i]), 1e-5) << i;
    }
    EXPECT_EQ(stash->live_bytes(), 0);
  }
}

TEST_F(LayerNormTest, PackedOutputsMoveGradientsByTheirError) {
  const std::vector<at::Tensor> expected = Backward(Forward());
  const auto error = [&](const char* policy) {
    const auto stash = Stash(policy, {weight_, bias_, matrix_});
    at::Tensor output;
    {
      ActivationStash::Scope scope(stash.get(), {1, 0, 0, 5});
      output = Forward();
    }
    return Distance(Backward(output)[0], expected[0]);
  };

  const double at_eight = error("lean(fixed(int(8)))");
  const double at_four = error("lean(fixed(int(4)))");

  EXPECT_GT(at_eight, 1e-6);
  EXPECT_LT(at_eight, 0.01);
  EXPECT_LT(at_four, 0.15);
  EXPECT_GT(at_four, 4 * at_eight);
}

TEST_F(LayerNormTest, WeightsNearZeroKeepTheInput) {
  EXPECT_TRUE(DeterminesItsInput(at::ones({8}), at::zeros({8})));
  EXPECT_TRUE(DeterminesItsInput(at::full({8}, -0.01), at::zeros({8})));
  at::Tensor weight = at::ones({8});
  weight[3] = 0.12;  // below 1/8
  EXPECT_FALSE(DeterminesItsInput(weight, at::zeros({8})));
  weight[3] = 0.13;
  EXPECT_TRUE(DeterminesItsInput(weight, at::zeros({8})));
  EXPECT_FALSE(DeterminesItsInput(weight, at::full({8}, -0.1)));
  weight[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(DeterminesItsInput(weight, at::zeros({8})));
  EXPECT_FALSE(DeterminesItsInput(at::zeros({8}), at::zeros({8})));

  {
    at::NoGradGuard no_grad;
    weight_[5] = 0;
  }
  const std::vector<at::Tensor> expected = Backward(Forward());
  const auto stash = Stash("lean(none)", {weight_, bias_, matrix_});
  at::Tensor output;
  {
    ActivationStash::Scope scope(stash.get(), {1, 0, 0, 5});
    output = Forward();
  }
  const std::vector<at::Tensor> gradients = Backward(output);

  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(at::equal(gradients[i], expected[i])) << i;
  }
}

TEST_F(LayerNormTest, ASecondBackwardPassIsRefused) {
  const at::Tensor output = Forward(/*from_output=*/true);
  output.backward(gradient_);

  try {
    output.backward(gradient_);
    FAIL() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                HasSubstr("backward through the graph a second time"));
  }
}

}  // namespace
}  // namespace deltapipe
