// Stages whose layers compute in bf16 or fp16 (train.precision).
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "torch/torch.h"
#include "worker/optim/optimizer.h"
#include "worker/stage/stage.h"
#include "worker/stage/testing/stage_pipeline.h"

namespace deltapipe {
namespace {

constexpr int kLayers = 2;
constexpr int64_t kSamples = 4;
constexpr int64_t kContext = 16;

v1::JobSpec Spec(const std::string& kind, const std::string& precision) {
  v1::JobSpec spec;
  spec.set_seed(23);
  spec.mutable_model()->set_kind(kind);
  spec.mutable_model()->set_layers(kLayers);
  spec.mutable_model()->set_width(32);
  spec.mutable_model()->set_heads(4);
  spec.mutable_model()->set_context(kContext);
  spec.mutable_train()->set_precision(precision);
  return spec;
}

/// The mean loss of the last ten of `num_steps` steps with AdamW.
double Train(const std::string& precision, int num_stages,
             const std::string& device, int num_steps) {
  StagePipeline pipeline(Spec("gpt", precision), num_stages, device, kSamples);
  OptimizerOptions options;
  std::vector<std::unique_ptr<Optimizer>> optimizers;
  for (size_t s = 0; s < pipeline.size(); ++s) {
    optimizers.push_back(
        *Optimizer::Create(options, pipeline.stage(s).parameters()));
  }
  constexpr double kRate = 1e-3;
  const float scale = precision == "fp16" ? 65536 : 1;
  double sum = 0;
  for (int64_t step = 0; step < num_steps; ++step) {
    double loss = 0;
    for (int64_t mb = 0; mb < 2; ++mb) {
      loss += 0.5 * pipeline.Run(step % 8 * 100 + mb * 40, scale, 0.5f);
    }
    if (step >= num_steps - 10) sum += loss / 10;
    for (size_t s = 0; s < pipeline.size(); ++s) {
      Stage& stage = pipeline.stage(s);
      optimizers[s]->Prepare(step, kRate, stage.weights(), stage.gradients());
      EXPECT_TRUE(optimizers[s]->Apply(step, kRate, 1.0, stage.weights()).ok());
    }
    pipeline.Forget();
  }
  return sum;
}

// Precision, device, stages.
using Case = std::tuple<std::string, std::string, int>;

class PrecisionTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (device() == "cuda" && !torch::cuda::is_available()) {
      GTEST_SKIP() << "not run: no CUDA device here";
    }
  }
  std::string precision() const { return std::get<0>(GetParam()); }
  std::string device() const { return std::get<1>(GetParam()); }
  int num_stages() const { return std::get<2>(GetParam()); }
  bool is_fp16() const { return precision() == "fp16"; }
};

// bf16 has 8 bits, fp16 has 11: gradients differ by a few roundings of a layer.
TEST_P(PrecisionTest, GradientsAreNearThoseOfFullPrecision) {
  for (const char* kind : {"gpt", "mlp"}) {
    StagePipeline full(Spec(kind, "fp32"), num_stages(), device(), kSamples);
    StagePipeline half(Spec(kind, precision()), num_stages(), device(),
                       kSamples);

    const double full_loss = full.Run(0, 1);
    const double half_loss = half.Run(0, is_fp16() ? 1024 : 1);

    EXPECT_NEAR(half_loss, full_loss, (is_fp16() ? 2e-3 : 1e-2) * full_loss);
    const double difference =
        RelativeDifference(half.Gradients(), full.Gradients());
    EXPECT_LE(difference, is_fp16() ? 5e-3 : 3e-2) << kind;
    EXPECT_GT(difference, 0) << kind << ": computes in fp32";
  }
}

class Fp16Test : public PrecisionTest {};

TEST_P(Fp16Test, ScalesOfTwoLeaveNoTrace) {
  StagePipeline pipeline(Spec("gpt", precision()), num_stages(), device(),
                         kSamples);

  pipeline.Run(0, 256);
  const std::vector<float> small = pipeline.Gradients();
  pipeline.Forget();
  pipeline.Run(0, 4096);
  const std::vector<float> large = pipeline.Gradients();

  // Below 2^-14 fp16 rounds more coarsely, so the smaller scale loses some.
  EXPECT_LE(RelativeDifference(small, large), 1e-3);
}

// Without a scale most of these gradients are below what fp16 can tell.
TEST_P(Fp16Test, TheScaleKeepsSmallGradients) {
  constexpr float kTiny = 1e-5f;
  StagePipeline full(Spec("gpt", "fp32"), num_stages(), device(), kSamples);
  StagePipeline half(Spec("gpt", precision()), num_stages(), device(),
                     kSamples);
  full.Run(0, 1, kTiny);

  half.Run(0, 1, kTiny);
  const double without = RelativeDifference(half.Gradients(), full.Gradients());
  half.Forget();
  half.Run(0, 65536, kTiny);
  const double with = RelativeDifference(half.Gradients(), full.Gradients());

  EXPECT_GT(without, 0.1);
  EXPECT_LE(with, 5e-3);
}

TEST_P(Fp16Test, AnOverflowMakesEveryStagesGradientsSaySo) {
  StagePipeline pipeline(Spec("gpt", precision()), num_stages(), device(),
                         kSamples);

  pipeline.Run(0, 65536, 65536);

  for (size_t s = 0; s < pipeline.size(); ++s) {
    bool is_finite = true;
    for (const float value : pipeline.stage(s).gradients()) {
      is_finite &= std::isfinite(value);
    }
    EXPECT_FALSE(is_finite) << "stage " << s;
  }
  pipeline.Forget();
  pipeline.Run(0, 1024);
  for (const float value : pipeline.Gradients()) {
    ASSERT_TRUE(std::isfinite(value));
  }
}

// Steps that are too small for the copy add up in the masters.
TEST_P(PrecisionTest, WeightsAreKeptInFullPrecision) {
  StagePipeline pipeline(Spec("gpt", precision()), num_stages(), device(),
                         kSamples);
  const auto first = [&]() -> float& {
    return pipeline.stage(0).weights().front();
  };
  first() = 1;
  pipeline.Forget();

  for (int i = 0; i < 100; ++i) {
    first() += 1e-5f;
    pipeline.Forget();
  }

  EXPECT_NEAR(first(), 1.001, 1e-5);
}

TEST_P(PrecisionTest, AGptTrainsToALossNearThatOfFullPrecision) {
  constexpr int kSteps = 200;
  const double first = Train("fp32", num_stages(), device(), 10);
  const double full = Train("fp32", num_stages(), device(), kSteps);

  const double half = Train(precision(), num_stages(), device(), kSteps);

  RecordProperty("fp32", absl::StrCat(full));
  RecordProperty(precision(), absl::StrCat(half));
  std::printf("after %d steps: fp32 %.4f, %s %.4f\n", kSteps, full,
              precision().c_str(), half);
  EXPECT_LT(full, 0.7 * first);
  EXPECT_NEAR(half, full, 0.03 * full);
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  return absl::StrCat(std::get<0>(info.param), "_", std::get<1>(info.param),
                      "_", std::get<2>(info.param));
}

INSTANTIATE_TEST_SUITE_P(PrecisionsDevicesStages, PrecisionTest,
                         ::testing::Combine(::testing::Values("bf16", "fp16"),
                                            ::testing::Values("cpu", "cuda"),
                                            ::testing::Values(1, 2)),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(DevicesStages, Fp16Test,
                         ::testing::Combine(::testing::Values("fp16"),
                                            ::testing::Values("cpu", "cuda"),
                                            ::testing::Values(1, 2)),
                         CaseName);

}  // namespace
}  // namespace deltapipe
