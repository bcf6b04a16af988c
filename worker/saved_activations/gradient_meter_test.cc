// What GradientMeter measures of convolutions and products, held to the
// variance that gradients are seen to have.
#include "worker/saved_activations/gradient_meter.h"

#include <memory>
#include <string>
#include <vector>

#include "compression/bit_plan/bit_ladder.h"
#include "compression/bit_plan/bit_plan.h"
#include "compression/bit_plan/gradient_variance.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/saved_activations/activation_stash.h"

namespace deltapipe {
namespace {

constexpr int kBits = 2;
constexpr int kDraws = 24;

struct Seen {
  double variance = 0;  // of the weight's gradient, summed over its elements
  SavedMeasurement measurement;
};

/// The gradient of `weight` where `run` makes an output of the input and it,
/// with the input packed anew in each draw. Samples of large values have large
/// gradients, from 1/8 to 1 times the largest.
template <typename Run>
Seen Measure(const at::Tensor& input, const at::Tensor& weight,
             const Run& run) {
  ActivationStash stash(nullptr, 17);
  stash.SetWeights({weight});
  const int64_t samples = input.size(0);
  std::vector<int64_t> extents(static_cast<size_t>(input.dim()), 1);
  extents[0] = samples;
  const at::Tensor scale = at::linspace(0.125, 1, samples).view(extents);
  const at::Tensor leaf = (input * scale).set_requires_grad(true);
  const std::shared_ptr<const Codec> codec =
      MakeCodec(GroupCodecText(kBits)).value();
  at::Tensor target;
  const auto gradient = [&](bool is_packed, uint64_t key,
                            GradientMeter* meter) {
    at::Tensor loss;
    stash.SetMeter(meter);
    {
      ActivationStash::Scope scope(
          &stash, {1, 0, 0, key}, [&](const SavedTensor&) {
            return SavedTreatment{is_packed ? codec : nullptr, false, "tried"};
          });
      // No leaf is an activation.
      const at::Tensor output = run(leaf.mul(1), weight);
      if (!target.defined()) target = at::randn_like(output) * scale;
      loss = output.mul(target).sum();
    }
    if (meter != nullptr) {
      meter->Watch(torch::autograd::impl::gradient_edge(loss));
    }
    return torch::autograd::grad({loss}, {weight})[0];
  };
  Seen seen;
  GradientMeter meter;
  const at::Tensor exact = gradient(false, 0, &meter);
  for (const SavedMeasurement& measurement : meter.Take()) {
    if (measurement.tensor.op == "mul") seen.measurement = measurement;
  }
  for (int draw = 1; draw <= kDraws; ++draw) {
    const at::Tensor error =
        gradient(true, static_cast<uint64_t>(draw), nullptr) - exact;
    seen.variance += error.square().sum().item<double>() / kDraws;
  }
  return seen;
}

struct Case {
  std::string name;
  int64_t kernel;
  int64_t stride;
  int64_t groups;
  bool is_channels_last = false;
  int64_t dilation = 1;
};

class ConvolutionTest : public ::testing::TestWithParam<Case> {};

// The mean of 24 draws of more than 500 elements has a standard deviation below
// 2 %; seeds are fixed.
TEST_P(ConvolutionTest, FormulaGivesTheVarianceOfTheWeightsGradient) {
  const Case& param = GetParam();
  torch::manual_seed(5);
  at::Tensor input = torch::randn({8, 16, 17, 17});
  if (param.is_channels_last) {
    input = input.contiguous(at::MemoryFormat::ChannelsLast);
  }
  const at::Tensor weight =
      torch::randn({32, 16 / param.groups, param.kernel, param.kernel})
          .set_requires_grad(true);
  const std::vector<int64_t> stride(2, param.stride);
  const std::vector<int64_t> padding(2, 0);
  const std::vector<int64_t> dilation(2, param.dilation);

  const Seen seen =
      Measure(input, weight, [&](const at::Tensor& x, const at::Tensor& w) {
        return at::conv2d(x, w, at::Tensor(), stride, padding, dilation,
                          param.groups);
      });

  EXPECT_EQ(seen.measurement.reader, "convolution");
  EXPECT_EQ(seen.measurement.positions, 8 * 17 * 17);
  EXPECT_GT(seen.measurement.alignment, 1.3);
  const double expected =
      QuantisationCost(GradientVariance(seen.measurement), kBits);
  RecordProperty("ratio", std::to_string(seen.variance / expected));
  EXPECT_NEAR(seen.variance / expected, 1, 0.06);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, ConvolutionTest,
    ::testing::Values(Case{"plain", 3, 1, 1}, Case{"strided", 3, 2, 1},
                      Case{"strided_point", 1, 2, 1}, Case{"patches", 4, 4, 1},
                      Case{"grouped", 3, 2, 4},
                      Case{"dilated", 3, 1, 1, false, 2},
                      Case{"channels_last", 3, 2, 1, true}),
    [](const auto& info) { return info.param.name; });

TEST(GradientMeterTest, RowsOfProductsMeetTheirOwnGradients) {
  torch::manual_seed(6);
  const at::Tensor weight = torch::randn({64, 48}).set_requires_grad(true);

  const Seen seen = Measure(
      torch::randn({128, 48}), weight,
      [](const at::Tensor& x, const at::Tensor& w) { return x.mm(w.t()); });

  EXPECT_EQ(seen.measurement.reader, "mm");
  EXPECT_EQ(seen.measurement.positions, 0);
  EXPECT_EQ(seen.measurement.reuse, 1);
  EXPECT_GT(seen.measurement.alignment, 1.3);
  const double expected =
      QuantisationCost(GradientVariance(seen.measurement), kBits);
  RecordProperty("ratio", std::to_string(seen.variance / expected));
  EXPECT_NEAR(seen.variance / expected, 1, 0.06);
}

}  // namespace
}  // namespace deltapipe
