#include "worker/stage/operators/gelu.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/codec_registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/function.h"
#include "worker/saved_activations/activation_stash.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::unique_ptr<ActivationStash> Stash(const std::string& policy) {
  auto made = MakeSavedPolicy(policy);
  EXPECT_TRUE(made.ok()) << made.status();
  return std::make_unique<ActivationStash>(std::move(*made), 17);
}

double Distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.sub(b).norm() / b.norm()).item<double>();
}

class GeluTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    leaf_ = at::randn({4, 16, 128}).requires_grad_();
    gradient_ = at::randn({4, 16, 128});
  }

  /// Of the leaf, whose gelu is computed of a result of "mul".
  at::Tensor GradientOf(ActivationStash* stash, uint64_t key = 5) {
    at::Tensor output;
    {
      ActivationStash::Scope scope(stash, {1, 0, 0, key});
      output = Gelu(leaf_.mul(1.5));
    }
    return Backward(output);
  }

  at::Tensor Backward(const at::Tensor& output) {
    output.backward(gradient_);
    const at::Tensor gradient = leaf_.grad().clone();
    leaf_.mutable_grad() = at::Tensor();
    return gradient;
  }

  at::Tensor leaf_, gradient_;
};

TEST_F(GeluTest, WithoutAStashItIsThatOfLibTorch) {
  const at::Tensor input = leaf_.mul(1.5);
  const at::Tensor plain = at::gelu(input);

  const at::Tensor ours = Gelu(input);

  EXPECT_TRUE(at::equal(ours, plain));
  EXPECT_EQ(ours.grad_fn()->name(), plain.grad_fn()->name());
}

TEST_F(GeluTest, DerivativeIsThatOfLibTorch) {
  const at::Tensor values = leaf_.detach();

  EXPECT_TRUE(at::equal(at::gelu_backward(gradient_, values),
                        gradient_.mul(GeluDerivative(values))) ||
              Distance(gradient_.mul(GeluDerivative(values)),
                       at::gelu_backward(gradient_, values)) < 1e-6);
}

TEST_F(GeluTest, InALeanStashTheDerivativeIsKeptAndTheForwardIsTheSame) {
  const auto stash = Stash("lean(none)");
  const at::Tensor plain = at::gelu(leaf_.mul(1.5));
  at::Tensor output;
  {
    ActivationStash::Scope scope(stash.get(), {1, 0, 0, 5});
    output = Gelu(leaf_.mul(1.5));
  }

  EXPECT_TRUE(at::equal(output, plain));
  ASSERT_EQ(stash->LastForward().size(), 1u);
  const SavedTensorReport report = stash->LastForward()[0];
  EXPECT_EQ(report.name, "model/mul/0");
  EXPECT_EQ(report.op, "mul");
  EXPECT_EQ(report.raw_bytes, 4 * 16 * 128 * 4);
  // Two bits, and a least value and a scale for each group of 256.
  EXPECT_EQ(report.stored_bytes, 4 * 16 * 128 / 4 + 32 * 4);
  EXPECT_THAT(report.reason, StartsWith("derivative, int(2,block=256"));
  const SavedBytes bytes = stash->TakeBytes();
  EXPECT_EQ(bytes.packed, report.stored_bytes);
  EXPECT_EQ(bytes.unique, report.raw_bytes);
  EXPECT_EQ(stash->live_bytes(), bytes.packed + bytes.metadata);
  output.backward(gradient_);
  EXPECT_EQ(stash->live_bytes(), 0);
}

TEST_F(GeluTest, ADroppedGraphAndARepeatedPassLeaveNothing) {
  const auto stash = Stash("lean(none)");
  for (int i = 0; i < 3; ++i) {
    ActivationStash::Scope scope(stash.get(), {1, 0, i, 5});
    Gelu(leaf_.mul(1.5));
  }
  EXPECT_EQ(stash->live_bytes(), 0);

  at::Tensor output;
  {
    ActivationStash::Scope scope(stash.get(), {1, 0, 0, 5});
    output = Gelu(leaf_.mul(1.5));
  }
  output.backward(gradient_, /*retain_graph=*/true);
  const at::Tensor first = leaf_.grad().clone();
  output.backward(gradient_);
  EXPECT_TRUE(at::equal(leaf_.grad(), first.mul(2)));
  EXPECT_THROW(output.backward(gradient_), c10::Error);
  EXPECT_EQ(stash->live_bytes(), 0);
}

TEST_F(GeluTest, BitsAreThoseOfTheKey) {
  const auto stash = Stash("lean(none)");
  const at::Tensor first = GradientOf(stash.get(), 5);

  EXPECT_TRUE(at::equal(GradientOf(stash.get(), 5), first));
  EXPECT_FALSE(at::equal(GradientOf(stash.get(), 6), first));
}

TEST_F(GeluTest, TreatmentsThatKeepTensorsAreThoseOfLibTorch) {
  const at::Tensor expected = Backward(at::gelu(leaf_.mul(1.5)));
  const auto stash = Stash("lean(none)");
  SavedSubstitute offered = SavedSubstitute::kNone;
  at::Tensor output;
  {
    ActivationStash::Scope scope(
        stash.get(), {1, 0, 0, 5}, [&](const SavedTensor& tensor) {
          offered = tensor.substitute;
          return SavedTreatment{nullptr, false, "kept"};
        });
    output = Gelu(leaf_.mul(1.5));
  }

  EXPECT_EQ(offered, SavedSubstitute::kDerivative);
  ASSERT_EQ(stash->LastForward().size(), 1u);
  EXPECT_EQ(stash->LastForward()[0].name, "model/mul/0");
  EXPECT_EQ(stash->LastForward()[0].reason, "kept");
  EXPECT_TRUE(at::equal(Backward(output), expected));
}

// An input that another operator has saved is there anyway.
TEST_F(GeluTest, AnInputThatIsKeptServes) {
  const auto stash = Stash("lean(fixed(int(8)))");
  at::Tensor output;
  {
    ActivationStash::Scope scope(stash.get(), {1, 0, 0, 5});
    const at::Tensor input = leaf_.mul(1.5);
    const at::Tensor square = input.square();
    output = square + Gelu(input);
  }

  ASSERT_EQ(stash->LastForward().size(), 1u);
  EXPECT_EQ(stash->LastForward()[0].num_aliases, 1);
  EXPECT_THAT(stash->LastForward()[0].reason, StartsWith("int(8)"));
  EXPECT_EQ(stash->TakeBytes().num_shared, 1);
}

TEST_F(GeluTest, WhatIsNotFiniteIsKeptAsItIs) {
  {
    at::NoGradGuard no_grad;
    leaf_[0][0][0] = std::numeric_limits<float>::quiet_NaN();
  }
  const at::Tensor expected = Backward(at::gelu(leaf_.mul(1.5)));
  const auto stash = Stash("lean(fixed(int(4)))");

  const at::Tensor gradient = GradientOf(stash.get());

  EXPECT_TRUE(at::equal(gradient.flatten().slice(0, 1),
                        expected.flatten().slice(0, 1)));
  ASSERT_EQ(stash->LastForward().size(), 1u);
  EXPECT_THAT(stash->LastForward()[0].reason, HasSubstr("not finite"));
}

TEST_F(GeluTest, SixteenBitsMultiplyInFp32) {
  const auto stash = Stash("lean(none,derivative=8)");
  const auto gradient = [&](bool in_stash) {
    std::unique_ptr<ActivationStash::Scope> scope;
    if (in_stash) {
      scope = std::make_unique<ActivationStash::Scope>(
          stash.get(), SavedContext{1, 0, 0, 5});
    }
    const at::Tensor output = Gelu(leaf_.mul(1.5).to(at::kBFloat16));
    scope.reset();
    return Backward(output.to(at::kFloat));
  };

  EXPECT_LT(Distance(gradient(true), gradient(false)), 0.01);
}

/// What is packed of one tensor and read again.
class PackedTensorErrors {
 public:
  at::Tensor RoundTrip(const at::Tensor& values, int draw) {
    RandomKey key;
    key.seed = 11;
    key.step = static_cast<uint32_t>(draw);
    const auto count = static_cast<size_t>(values.numel());
    std::vector<uint8_t> payload(
        static_cast<size_t>(codec_->MaxPayloadBytes(values.numel())));
    const auto size = codec_->Encode({values.data_ptr<float>(), count}, key,
                                     absl::MakeSpan(payload));
    EXPECT_TRUE(size.ok()) << size.status();
    at::Tensor decoded = at::empty_like(values);
    EXPECT_TRUE(
        codec_->Decode(payload, {decoded.data_ptr<float>(), count}).ok());
    return decoded;
  }

 private:
  const std::unique_ptr<Codec> codec_ = MakeCodec(GroupCodecText(2)).value();
};

/// Four levels without a payload's scales (Yang et al., "Reducing Fine-Tuning
/// Memory Overhead by Approximate and Memory-Sharing Backpropagation", ICML
/// 2024: Approx-BP).
at::Tensor StepDerivative(const at::Tensor& values) {
  return values.gt(-3.186).mul(-0.0492) + values.gt(-0.0012).mul(1.0980) +
         values.gt(3.191).mul(-0.0487);
}

// The gradient's error with two bits for each value: of the input, of the
// derivative and of Approx-BP's steps, for one draw and for the mean of 64.
TEST(GeluError, TwoBitsOfTheDerivativeAreBetterThanTwoBitsOfTheInput) {
  constexpr int kDraws = 64;
  std::printf("deviation: input, derivative, steps; means of %d draws\n",
              kDraws);
  for (const double deviation : {0.3, 1.0, 2.0}) {
    at::manual_seed(3);
    const at::Tensor x = at::randn({1 << 16}).mul(deviation);
    const at::Tensor gradient = at::randn({1 << 16});
    const at::Tensor exact = at::gelu_backward(gradient, x);
    const at::Tensor derivative = GeluDerivative(x);
    PackedTensorErrors packed;
    at::Tensor of_input = at::zeros_like(x);
    at::Tensor of_derivative = at::zeros_like(x);
    double input_once = 0;
    double derivative_once = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      const at::Tensor by_input =
          at::gelu_backward(gradient, packed.RoundTrip(x, draw));
      const at::Tensor by_derivative =
          gradient.mul(packed.RoundTrip(derivative, draw));
      if (draw == 0) input_once = Distance(by_input, exact);
      if (draw == 0) derivative_once = Distance(by_derivative, exact);
      of_input.add_(by_input, 1.0 / kDraws);
      of_derivative.add_(by_derivative, 1.0 / kDraws);
    }
    const double steps = Distance(gradient.mul(StepDerivative(x)), exact);
    std::printf("%.1f: %.4f, %.4f, %.4f; %.4f, %.4f, %.4f\n", deviation,
                input_once, derivative_once, steps, Distance(of_input, exact),
                Distance(of_derivative, exact), steps);

    EXPECT_LT(derivative_once, input_once);
    // Unbiased: falls as one over the root of the draws.
    EXPECT_NEAR(Distance(of_derivative, exact),
                derivative_once / std::sqrt(kDraws),
                0.2 * derivative_once / std::sqrt(kDraws));
    EXPECT_GT(Distance(of_input, exact), 1.2 * Distance(of_derivative, exact));
    EXPECT_GT(steps, Distance(of_derivative, exact));
  }
}

}  // namespace
}  // namespace deltapipe
