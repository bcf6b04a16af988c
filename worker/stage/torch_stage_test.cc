#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/stage/initial_weights.h"
#include "worker/stage/models/model.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

/// "gpt", "mlp", or "tied", a gpt.
v1::JobSpec Spec(const std::string& kind) {
  v1::JobSpec spec;
  spec.set_seed(17);
  spec.mutable_model()->set_kind(kind == "tied" ? "gpt" : kind);
  spec.mutable_model()->set_tied(kind == "tied" ? "on" : "off");
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(32);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(24);
  return spec;
}

std::vector<uint8_t> Text(size_t size, int offset) {
  std::vector<uint8_t> text(size);
  for (size_t i = 0; i < size; ++i) {
    text[i] = static_cast<uint8_t>('a' + (i * 7 + i / 3 + offset) % 26);
  }
  return text;
}

using Gradients = std::map<std::string, std::vector<float>>;

/// Two micro-batches through a pipeline of `num_stages`; the mean loss. Tied
/// gradients are summed over the stages.
double RunSplit(v1::JobSpec spec, int num_stages, const std::string& device,
                Gradients* gradients) {
  spec.mutable_parallel()->set_stages(num_stages);
  constexpr int64_t kSamples = 3;
  const size_t bytes = kSamples * static_cast<size_t>(spec.model().context());
  std::vector<std::unique_ptr<Stage>> stages;
  for (int s = 0; s < num_stages; ++s) {
    auto stage = MakeTorchStage(spec, s * 4 / num_stages,
                                (s + 1) * 4 / num_stages, device);
    EXPECT_TRUE(stage.ok()) << stage.status();
    stages.push_back(*std::move(stage));
  }
  double loss = 0;
  for (int mb = 0; mb < 2; ++mb) {
    const std::vector<uint8_t> tokens = Text(bytes, mb);
    const std::vector<uint8_t> targets = Text(bytes, mb + 1);
    TensorRef activation;
    for (auto& stage : stages) {
      StageInput input;
      input.microbatch = mb;
      input.num_samples = kSamples;
      input.tokens = tokens;
      input.targets = targets;
      input.activation = activation;
      input.loss_scale = 0.5f;
      StageOutput output;
      EXPECT_TRUE(stage->Forward(input, &output).ok());
      activation = output.activation;
      loss += output.loss / 2;
    }
  }
  for (int mb = 0; mb < 2; ++mb) {
    TensorRef gradient;
    for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
      auto result = (*stage)->Backward(mb, gradient);
      EXPECT_TRUE(result.ok()) << result.status();
      gradient = *result;
    }
  }
  for (auto& stage : stages) {
    const absl::Span<float> flat = stage->gradients();
    for (const ParameterSegment& segment : stage->parameters().segments) {
      std::vector<float>& sum = (*gradients)[segment.name];
      sum.resize(static_cast<size_t>(segment.num_elements));
      for (size_t i = 0; i < sum.size(); ++i) {
        sum[i] += flat[static_cast<size_t>(segment.offset) + i];
      }
    }
  }
  return loss;
}

/// The same by plain autograd on the unsplit model, without any stage.
double RunPlain(const v1::JobSpec& spec, Gradients* gradients) {
  const auto model = MakeModel(spec.model(), 0, 4);
  {
    torch::NoGradGuard no_grad;
    for (NamedParameter& parameter : model->Parameters()) {
      std::vector<float> values(static_cast<size_t>(parameter.tensor.numel()));
      FillInitialWeights(spec.seed(), parameter.name, parameter.init_mean,
                         parameter.init_deviation, absl::MakeSpan(values));
      parameter.tensor.copy_(torch::from_blob(
          values.data(), parameter.tensor.sizes(), torch::kFloat));
    }
  }
  const int64_t context = spec.model().context();
  torch::Tensor total = torch::zeros({});
  for (int mb = 0; mb < 2; ++mb) {
    auto tokens = Text(static_cast<size_t>(3 * context), mb);
    auto targets = Text(static_cast<size_t>(3 * context), mb + 1);
    const auto logits = model->Forward(
        torch::from_blob(tokens.data(), {3, context}, torch::kByte)
            .to(torch::kLong));
    total = total + 0.5 * torch::nn::functional::cross_entropy(
                              logits.reshape({3 * context, 256}),
                              torch::from_blob(targets.data(), {3 * context},
                                               torch::kByte)
                                  .to(torch::kLong));
  }
  total.backward();
  for (NamedParameter& parameter : model->Parameters()) {
    const auto gradient = parameter.tensor.grad().contiguous();
    (*gradients)[parameter.name].assign(
        gradient.data_ptr<float>(),
        gradient.data_ptr<float>() + gradient.numel());
  }
  return total.item<double>();
}

/// By model and device.
class TorchStageTest
    : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  void SetUp() override {
    if (device() == "cuda" && !torch::cuda::is_available()) {
      GTEST_SKIP() << "not run: no CUDA device here";
    }
  }
  v1::JobSpec spec() const { return Spec(std::get<0>(GetParam())); }
  std::string device() const { return std::get<1>(GetParam()); }
  /// Of sums of products, relative: a GPU adds in another order.
  double tolerance() const { return device() == "cpu" ? 1e-6 : 1e-4; }
};

TEST_P(TorchStageTest, AnySplitHasTheGradientsOfPlainAutograd) {
  Gradients plain;
  const double plain_loss = RunPlain(spec(), &plain);

  for (int num_stages : {1, 2, 4}) {
    Gradients split;
    const double split_loss = RunSplit(spec(), num_stages, device(), &split);

    EXPECT_NEAR(split_loss, plain_loss, tolerance() * plain_loss);
    ASSERT_EQ(split.size(), plain.size());
    for (const auto& [name, values] : plain) {
      ASSERT_EQ(split[name].size(), values.size()) << name;
      double difference = 0;
      double norm = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        difference += std::pow(split[name][i] - values[i], 2);
        norm += std::pow(values[i], 2);
      }
      EXPECT_LE(difference, 100 * tolerance() * tolerance() * norm)
          << name << ", stages " << num_stages;
    }
  }
}

TEST_P(TorchStageTest, EvaluationKeepsNothingForABackward) {
  auto stage = MakeTorchStage(spec(), 0, 4, device());
  ASSERT_TRUE(stage.ok()) << stage.status();
  const std::vector<uint8_t> text = Text(24, 0);
  StageInput input;
  input.num_samples = 1;
  input.tokens = text;
  input.targets = text;
  input.needs_backward = false;
  StageOutput output;

  ASSERT_TRUE((*stage)->Forward(input, &output).ok());

  EXPECT_GT(output.loss, 0);
  EXPECT_EQ((*stage)->Backward(0, {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_P(TorchStageTest, WeightsWrittenInPlaceTakeEffect) {
  auto stage = MakeTorchStage(spec(), 0, 4, device());
  ASSERT_TRUE(stage.ok()) << stage.status();
  const std::vector<uint8_t> text = Text(24, 0);
  StageInput input;
  input.num_samples = 1;
  input.tokens = text;
  input.targets = text;
  input.needs_backward = false;

  for (float& weight : (*stage)->weights()) weight = 0;
  ASSERT_TRUE((*stage)->WeightsChanged().ok());
  StageOutput output;
  ASSERT_TRUE((*stage)->Forward(input, &output).ok());

  EXPECT_NEAR(output.loss, std::log(256.0), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(ModelsAndDevices, TorchStageTest,
                         ::testing::Combine(::testing::Values("gpt", "mlp",
                                                              "tied"),
                                            ::testing::Values("cpu", "cuda")));

constexpr char kEmbedding[] = "embedding.token.weight";

absl::Span<float> Window(Stage* stage, absl::Span<float> flat,
                         const std::string& name) {
  for (const ParameterSegment& segment : stage->parameters().segments) {
    if (segment.name != name) continue;
    return flat.subspan(static_cast<size_t>(segment.offset),
                        static_cast<size_t>(segment.num_elements));
  }
  ADD_FAILURE() << "no parameter " << name;
  return {};
}

TEST(TiedGptTest, TheGradientIsTheSumOfThoseOfEmbeddingAndHead) {
  const auto two = MakeTorchStage(Spec("gpt"), 0, 4, "cpu").value();
  const auto one = MakeTorchStage(Spec("tied"), 0, 4, "cpu").value();
  const auto embedding = Window(two.get(), two->weights(), kEmbedding);
  const auto head = Window(two.get(), two->weights(), "head.output.weight");
  std::copy(embedding.begin(), embedding.end(), head.begin());
  ASSERT_TRUE(two->WeightsChanged().ok());
  const std::vector<uint8_t> tokens = Text(48, 0);
  const std::vector<uint8_t> targets = Text(48, 1);
  StageInput input;
  input.num_samples = 2;
  input.tokens = tokens;
  input.targets = targets;
  StageOutput of_two;
  StageOutput of_one;

  ASSERT_TRUE(two->Forward(input, &of_two).ok());
  ASSERT_TRUE(one->Forward(input, &of_one).ok());
  ASSERT_TRUE(two->Backward(0, {}).ok());
  ASSERT_TRUE(one->Backward(0, {}).ok());

  EXPECT_EQ(of_one.loss, of_two.loss);
  const auto sum = Window(one.get(), one->gradients(), kEmbedding);
  const auto left = Window(two.get(), two->gradients(), kEmbedding);
  const auto right = Window(two.get(), two->gradients(), "head.output.weight");
  for (size_t i = 0; i < sum.size(); ++i) {
    EXPECT_NEAR(sum[i], left[i] + right[i], 1e-6) << i;
  }
}

TEST(TiedGptTest, BothEndsHoldTheTensorLastAndAlike) {
  v1::JobSpec spec = Spec("tied");
  spec.mutable_parallel()->set_stages(3);
  const auto first = MakeTorchStage(spec, 0, 1, "cpu").value();
  const auto middle = MakeTorchStage(spec, 1, 3, "cpu").value();
  const auto last = MakeTorchStage(spec, 3, 4, "cpu").value();

  for (const auto* end : {&first, &last}) {
    const ParameterLayout& layout = (*end)->parameters();
    EXPECT_EQ(layout.segments.back().name, kEmbedding);
    EXPECT_EQ(layout.segments.back().offset, layout.tied_begin());
    EXPECT_THAT(layout.tied_stages, ::testing::ElementsAre(0, 2));
    EXPECT_EQ(layout.num_tied, 256 * 32);
  }
  EXPECT_EQ(first->weights().last(256 * 32), last->weights().last(256 * 32));
  EXPECT_EQ(middle->parameters().num_tied, 0);
  EXPECT_THAT(middle->parameters().tied_stages, ::testing::IsEmpty());
}

TEST(TorchStageDeviceTest, CudaWithoutADeviceIsRefusedWithTheRemedy) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "this machine has CUDA";
  const auto device = ResolveDevice("cuda");

  EXPECT_EQ(device.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(device.status().message()),
              ::testing::HasSubstr("use parallel.device: cpu"));
}

}  // namespace
}  // namespace deltapipe
