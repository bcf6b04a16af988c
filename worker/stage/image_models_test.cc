// Models of images as stages: a cut anywhere gives the losses and gradients of
// the whole, bit by bit, and Fixup begins as its paper says.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/image_model.h"
#include "base/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/initial_weights.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

constexpr int kLayers = 5;
constexpr int64_t kSamples = 4;

/// "image_mlp", or a norm of resnet.
v1::JobSpec Spec(const std::string& kind, int layers = kLayers) {
  v1::JobSpec spec;
  spec.set_seed(17);
  spec.mutable_model()->set_kind(kind == "image_mlp" ? kind : "resnet");
  spec.mutable_model()->set_norm(kind);
  spec.mutable_model()->set_layers(layers);
  spec.mutable_model()->set_width(8);
  return spec;
}

std::vector<uint8_t> Pixels(int64_t size, uint32_t seed) {
  std::vector<uint8_t> pixels(static_cast<size_t>(kSamples * size * size));
  for (size_t i = 0; i < pixels.size(); ++i) {
    pixels[i] = static_cast<uint8_t>(
        Philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, {seed, 0})[0]);
  }
  return pixels;
}

const std::vector<uint8_t> kClasses = {3, 0, 9, 3};

std::unique_ptr<Stage> Make(const v1::JobSpec& spec, int first, int end) {
  auto stage = MakeTorchStage(spec, first, end, "cpu");
  EXPECT_TRUE(stage.ok()) << stage.status();
  // Zeros of Fixup would hide what comes before them.
  for (const ParameterSegment& segment : (*stage)->parameters().segments) {
    FillInitialWeights(
        5, segment.name, segment.name.find("norm") != std::string::npos ? 1 : 0,
        0.1,
        (*stage)->weights().subspan(static_cast<size_t>(segment.offset),
                                    static_cast<size_t>(segment.num_elements)));
  }
  EXPECT_TRUE((*stage)->WeightsChanged().ok());
  return *std::move(stage);
}

struct Outcome {
  std::vector<double> losses;
  std::map<std::string, std::vector<float>> gradients;
};

/// Two micro-batches, of two sizes where the model takes them.
Outcome RunCut(const v1::JobSpec& spec, const std::vector<int>& ends) {
  std::vector<std::unique_ptr<Stage>> stages;
  int begin = 0;
  for (const int end : ends) {
    stages.push_back(Make(spec, begin, end));
    begin = end;
  }
  Outcome outcome;
  for (int mb = 0; mb < 2; ++mb) {
    const bool is_small = mb == 1 && spec.model().kind() == "resnet";
    const auto pixels =
        Pixels(is_small ? 15 : kImageSize, static_cast<uint32_t>(mb));
    StageOutput output;
    for (const auto& stage : stages) {
      StageInput input;
      input.microbatch = mb;
      input.num_samples = kSamples;
      input.tokens = pixels;
      input.targets = kClasses;
      input.activation = output.activation;
      output = {};
      const absl::Status status = stage->Forward(input, &output);
      EXPECT_TRUE(status.ok()) << status;
    }
    outcome.losses.push_back(output.loss);
  }
  for (int mb = 0; mb < 2; ++mb) {
    TensorRef gradient;
    for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
      auto result = (*stage)->Backward(mb, gradient);
      EXPECT_TRUE(result.ok()) << result.status();
      gradient = *result;
    }
  }
  for (const auto& stage : stages) {
    for (const ParameterSegment& segment : stage->parameters().segments) {
      const auto values =
          stage->gradients().subspan(static_cast<size_t>(segment.offset),
                                     static_cast<size_t>(segment.num_elements));
      outcome.gradients[segment.name].assign(values.begin(), values.end());
    }
  }
  return outcome;
}

class ImageModelsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ImageModelsTest, AnySplitIsTheWholeBitByBit) {
  const v1::JobSpec spec = Spec(GetParam());
  const Outcome whole = RunCut(spec, {kLayers});

  for (const std::vector<int>& ends :
       {std::vector<int>{2, 5}, {3, 5}, {1, 4, 5}, {1, 2, 3, 4, 5}}) {
    const Outcome split = RunCut(spec, ends);

    EXPECT_EQ(split.losses, whole.losses);
    EXPECT_EQ(split.gradients, whole.gradients);
  }
  for (const auto& [name, values] : whole.gradients) {
    const bool is_moved = std::any_of(values.begin(), values.end(),
                                      [](float value) { return value != 0; });
    EXPECT_TRUE(is_moved) << name;
  }
}

TEST_P(ImageModelsTest, ActivationsHaveTheShapesThatThePlannerCountsOn) {
  const v1::JobSpec spec = Spec(GetParam());
  for (int layer = 0; layer < kLayers; ++layer) {
    const auto stage = Make(spec, layer, layer + 1);
    const BoundaryShape out =
        BoundaryShapeOf(spec.model().kind(), layer + 1, kLayers, 8, 0);
    const auto pixels = Pixels(kImageSize, 1);
    const std::vector<float> values(
        static_cast<size_t>(kSamples * stage->input_elements()), 0.5f);
    StageInput input;
    input.num_samples = kSamples;
    input.tokens = pixels;
    input.targets = kClasses;
    if (layer > 0) input.activation = {values, nullptr};
    StageOutput output;

    ASSERT_TRUE(stage->Forward(input, &output).ok());

    EXPECT_EQ(stage->output_elements(), out.rows * out.columns);
    if (layer + 1 == kLayers) continue;
    EXPECT_EQ(static_cast<int64_t>(output.activation.values.size()),
              kSamples * out.rows * out.columns);
  }
}

TEST_P(ImageModelsTest, EvaluationSeesWhatTrainingSees) {
  const auto stage = Make(Spec(GetParam()), 0, kLayers);
  const auto pixels = Pixels(kImageSize, 1);
  StageInput input;
  input.num_samples = kSamples;
  input.tokens = pixels;
  input.targets = kClasses;
  StageOutput training;
  StageOutput evaluation;

  ASSERT_TRUE(stage->Forward(input, &training).ok());
  input.needs_backward = false;
  ASSERT_TRUE(stage->Forward(input, &evaluation).ok());

  EXPECT_EQ(training.loss, evaluation.loss);
}

// bf16 has 8 bits: 2^-9 relative in each operation.
TEST_P(ImageModelsTest, SixteenBitsComeClose) {
  v1::JobSpec spec = Spec(GetParam());
  const Outcome full = RunCut(spec, {kLayers});
  spec.mutable_train()->set_precision("bf16");

  const Outcome half = RunCut(spec, {2, kLayers});

  for (size_t mb = 0; mb < full.losses.size(); ++mb) {
    EXPECT_NEAR(half.losses[mb], full.losses[mb], 0.02 * full.losses[mb]);
    EXPECT_NE(half.losses[mb], full.losses[mb]);
  }
}

TEST_P(ImageModelsTest, WrongCountsAreRefusedNotRead) {
  const auto first = Make(Spec(GetParam()), 0, kLayers);
  auto pixels = Pixels(kImageSize, 1);
  std::vector<uint8_t> classes = kClasses;
  classes.pop_back();
  StageInput input;
  input.num_samples = kSamples;
  input.tokens = pixels;
  input.targets = classes;
  StageOutput output;

  const absl::Status targets = first->Forward(input, &output);
  pixels.pop_back();
  input.tokens = pixels;
  const absl::Status tokens = first->Forward(input, &output);

  EXPECT_EQ(targets.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(targets.message()),
              HasSubstr("targets of 3 elements, expected 4"));
  EXPECT_EQ(tokens.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokens.message()),
              HasSubstr("input of 3135 elements"));
}

INSTANTIATE_TEST_SUITE_P(Kinds, ImageModelsTest,
                         ::testing::Values("image_mlp", "batch", "group",
                                           "fixup"));

TEST(ImageMlpTest, ImagesOfAnotherSizeAreRefused) {
  const auto stage = Make(Spec("image_mlp"), 0, kLayers);
  const auto pixels = Pixels(14, 1);
  StageInput input;
  input.num_samples = kSamples;
  input.tokens = pixels;
  input.targets = kClasses;
  StageOutput output;

  EXPECT_EQ(stage->Forward(input, &output).code(),
            absl::StatusCode::kInvalidArgument);
}

double DeviationOf(const std::vector<float>& values) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  return std::sqrt(squares / static_cast<double>(values.size()));
}

/// Initial weights by name.
std::map<std::string, std::vector<float>> InitialWeights(
    const v1::JobSpec& spec) {
  auto stage = MakeTorchStage(spec, 0, spec.model().layers(), "cpu").value();
  std::map<std::string, std::vector<float>> weights;
  for (const ParameterSegment& segment : stage->parameters().segments) {
    const auto values =
        stage->weights().subspan(static_cast<size_t>(segment.offset),
                                 static_cast<size_t>(segment.num_elements));
    weights[segment.name].assign(values.begin(), values.end());
  }
  return weights;
}

// Zhang, Dauphin, Ma, section 3.1: 1. the head and the last convolution of each
// branch begin at 0; 2. the others at He's deviation times L^(-1/(2m-2)), here
// m = 2; 3. a scale of 1 a branch, and shifts of 0 before each convolution and
// activation. A deviation of n normals is within 8 / sqrt(2 n) of its own,
// relative, with more than 1 - 1e-14 (n >= 1,152 here).
TEST(FixupTest, WeightsBeginAsThePaperSays) {
  v1::JobSpec spec = Spec("fixup", 9);
  spec.mutable_model()->set_width(16);

  const auto weights = InitialWeights(spec);

  EXPECT_THAT(weights.at("head.output.weight"), Each(0));
  EXPECT_THAT(weights.at("blocks.4.conv2.weight"), Each(0));
  EXPECT_THAT(weights.at("blocks.4.scale"), Each(1));
  for (const char* const shift : {"bias1", "bias2", "bias3", "bias4"}) {
    EXPECT_THAT(weights.at(std::string("blocks.4.") + shift), Each(0));
  }
  for (int layer = 0; layer < 9; ++layer) {
    const auto& conv =
        weights.at("blocks." + std::to_string(layer) + ".conv1.weight");
    const auto inputs =
        static_cast<double>(ResidualBlockOf(layer, 9, 16).input_channels * 9);
    const double expected = std::sqrt(2 / inputs) / std::sqrt(9);
    EXPECT_NEAR(DeviationOf(conv) / expected, 1,
                8 / std::sqrt(2.0 * static_cast<double>(conv.size())))
        << "block " << layer;
  }
  EXPECT_EQ(weights.count("blocks.0.norm1.weight"), 0);
}

// With each branch at 0 a block hands on what it gets, however deep the model,
// and no class is likelier than another.
TEST(FixupTest, AtTheBeginningBlocksHandOnTheirInput) {
  const v1::JobSpec spec = Spec("fixup", 30);
  const auto first = MakeTorchStage(spec, 0, 1, "cpu").value();
  const auto ten = MakeTorchStage(spec, 0, 10, "cpu").value();
  const auto whole = MakeTorchStage(spec, 0, 30, "cpu").value();
  const auto pixels = Pixels(kImageSize, 1);
  StageInput input;
  input.num_samples = kSamples;
  input.tokens = pixels;
  input.targets = kClasses;
  StageOutput after_one;
  StageOutput after_ten;
  StageOutput end;

  ASSERT_TRUE(first->Forward(input, &after_one).ok());
  ASSERT_TRUE(ten->Forward(input, &after_ten).ok());
  ASSERT_TRUE(whole->Forward(input, &end).ok());

  EXPECT_EQ(after_one.activation.values, after_ten.activation.values);
  EXPECT_NEAR(end.loss, std::log(10.0), 1e-6);
}

TEST(ResidualNetTest, ThreeGroupsOfNearEqualCount) {
  std::vector<int64_t> channels;
  std::vector<int64_t> sizes;
  for (int layer = 0; layer < 7; ++layer) {
    channels.push_back(ResidualBlockOf(layer, 7, 8).output_channels);
    sizes.push_back(ResidualBlockOf(layer, 7, 8).output_size);
  }

  EXPECT_THAT(channels, ::testing::ElementsAre(8, 8, 8, 16, 16, 32, 32));
  EXPECT_THAT(sizes, ::testing::ElementsAre(28, 28, 28, 14, 14, 7, 7));
}

}  // namespace
}  // namespace deltapipe
