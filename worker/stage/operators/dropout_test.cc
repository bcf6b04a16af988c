#include "worker/stage/operators/dropout.h"

#include <memory>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "ATen/core/grad_mode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/csrc/autograd/function.h"
#include "worker/stage/operators/dropout_draw.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const DropoutDraw> Draw(std::vector<uint64_t> keys,
                                        double share = 0.3) {
  return std::make_shared<const DropoutDraw>(
      DropoutDraw{23, 5, std::move(keys), share});
}

at::Tensor Normal(at::IntArrayRef sizes) {
  at::manual_seed(3);
  return at::randn(sizes);
}

/// Of ones: 0 or the scale.
at::Tensor Mask(const at::Tensor& like) {
  at::NoGradGuard no_grad;
  return Dropout(at::ones(like.sizes()), "layer", "place");
}

TEST(DropoutTest, OutsideOfAScopeItIsTheTensorItself) {
  const at::Tensor x = Normal({2, 8}).requires_grad_();

  EXPECT_TRUE(Dropout(x, "layer", "place").is_same(x));
  EXPECT_EQ(DroppedRelu(x, "layer", "place").grad_fn()->name(),
            at::relu(x).grad_fn()->name());
}

TEST(DropoutTest, ValuesAndGradientAreThoseOfTheProductWithTheMask) {
  DropoutScope scope(Draw({4, 9}));
  const at::Tensor weights = Normal({2, 5, 33});
  at::Tensor x = Normal({2, 5, 33}).add(1).requires_grad_();
  at::Tensor expected_x = x.detach().clone().requires_grad_();

  const at::Tensor y = Dropout(x, "layer", "place");
  const at::Tensor expected = expected_x * Mask(x);
  y.mul(weights).sum().backward();
  expected.mul(weights).sum().backward();

  EXPECT_TRUE(at::equal(y, expected));
  EXPECT_TRUE(at::equal(x.grad(), expected_x.grad()));
  EXPECT_GT(x.grad().eq(0).sum().item<int64_t>(), 50);
}

// The backward pass runs outside of the scope, on another's thread maybe.
TEST(DropoutTest, GradientDrawsTheSameAfterTheScope) {
  at::Tensor x = Normal({2, 100}).requires_grad_();
  at::Tensor y, mask;
  {
    DropoutScope scope(Draw({4, 9}));
    y = Dropout(x, "layer", "place");
    mask = Mask(x);
  }

  y.sum().backward();

  EXPECT_TRUE(at::equal(x.grad(), mask));
}

TEST(DropoutTest, AViewIsDroppedAsItsElementsAre) {
  DropoutScope scope(Draw({4, 9}));
  const at::Tensor x = Normal({2, 6, 50});
  const at::Tensor view = x.transpose(1, 2).contiguous().transpose(1, 2);
  ASSERT_FALSE(view.is_contiguous());

  EXPECT_TRUE(
      at::equal(Dropout(view, "layer", "place"), Dropout(x, "layer", "place")));
}

TEST(DropoutTest, SixteenBitsDropTheSameValues) {
  DropoutScope scope(Draw({4, 9}));
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    at::Tensor x = Normal({2, 300}).to(type).requires_grad_();

    const at::Tensor y = Dropout(x, "layer", "place");
    y.sum().backward();

    EXPECT_EQ(y.scalar_type(), type);
    EXPECT_TRUE(at::equal(y, x.detach().to(at::kFloat).mul(Mask(x)).to(type)));
    EXPECT_TRUE(at::equal(x.grad(), Mask(x).to(type)));
  }
}

TEST(DropoutTest, SamplesKeepTheirMasksInAnyMicrobatch) {
  const at::Tensor x = Normal({4, 3, 70});
  const auto drop = [](const at::Tensor& values, std::vector<uint64_t> keys) {
    DropoutScope scope(Draw(std::move(keys)));
    return Dropout(values, "layer", "place");
  };
  const at::Tensor whole = drop(x, {1, 2, 3, 4});

  EXPECT_TRUE(at::equal(at::cat({drop(x.narrow(0, 0, 1), {1}),
                                 drop(x.narrow(0, 1, 3), {2, 3, 4})}),
                        whole));
  const at::Tensor order = at::tensor({2, 0, 3, 1});
  EXPECT_TRUE(at::equal(drop(x.index_select(0, order), {3, 1, 4, 2}),
                        whole.index_select(0, order)));
}

TEST(DropoutTest, DroppedReluIsDropoutOfARelu) {
  DropoutScope scope(Draw({4, 9}));
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = Normal({2, 500}).to(type).requires_grad_();
    at::Tensor plain_x = x.detach().clone().requires_grad_();
    const at::Tensor weights = Normal({2, 500}).add(0.5).to(type);

    const at::Tensor y = DroppedRelu(x, "layer", "place");
    const at::Tensor plain = Dropout(at::relu(plain_x), "layer", "place");
    y.mul(weights).sum().backward();
    plain.mul(weights).sum().backward();

    EXPECT_TRUE(at::equal(y, plain));
    EXPECT_TRUE(at::equal(x.grad(), plain_x.grad()));
  }
}

TEST(DropoutTest, WithoutGradientThereIsNoNode) {
  DropoutScope scope(Draw({4, 9}));
  const at::Tensor x = Normal({2, 8});
  EXPECT_FALSE(Dropout(x, "layer", "place").requires_grad());
  at::NoGradGuard no_grad;
  const at::Tensor leaf = Normal({2, 8}).requires_grad_();
  EXPECT_FALSE(DroppedRelu(leaf, "layer", "place").requires_grad());
}

TEST(DropoutTest, AMicrobatchOfOtherSamplesIsRefused) {
  DropoutScope scope(Draw({4, 9, 11}));
  try {
    Dropout(Normal({2, 8}), "blocks.3", "projection");
    FAIL() << "no error";
  } catch (const c10::Error& error) {
    EXPECT_THAT(error.what_without_backtrace(),
                HasSubstr("dropout at blocks.3/projection: a tensor of sizes "
                          "[2, 8] of a micro-batch with 3 sample keys"));
  }
}

}  // namespace
}  // namespace deltapipe
