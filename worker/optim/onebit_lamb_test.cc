#include "worker/optim/onebit_lamb.h"

#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/loopback_ranks.h"
#include "worker/optim/testing/onebit_lamb_transcription.h"
#include "worker/optim/testing/onebit_replicas.h"
#include "worker/optim/testing/replica_comparison.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

constexpr uint64_t kSeed = 1706;
constexpr int64_t kSteps = 200;
constexpr int64_t kCompressAfter = 100;
constexpr double kRate = 8e-3;

OptimizerOptions Options(double weight_decay) {
  OptimizerOptions options;
  options.kind = "onebit_lamb";
  options.weight_decay = weight_decay;
  options.compress_after_step = kCompressAfter;
  return options;
}

std::vector<double> Concatenate(
    const OneBitLambTranscription& oracle,
    std::vector<double> OneBitLambTranscription::Tensor::*part) {
  std::vector<double> flat;
  for (const auto& tensor : oracle.tensors()) {
    flat.insert(flat.end(), (tensor.*part).begin(), (tensor.*part).end());
  }
  return flat;
}

template <typename Real>
void ExpectStateNear(OneBitReplicas<Real>& replicas,
                     const OneBitLambTranscription& oracle, double tolerance) {
  using Tensor = OneBitLambTranscription::Tensor;
  const auto state = replicas.optimizer(0).ExportState();
  EXPECT_LE(RelativeDifference(replicas.weights()[0], oracle.Weights()),
            tolerance);
  EXPECT_LE(
      RelativeDifference(state.at("momentum"), Concatenate(oracle, &Tensor::m)),
      tolerance);
  EXPECT_LE(
      RelativeDifference(state.at("variance"), Concatenate(oracle, &Tensor::v)),
      tolerance);
  EXPECT_LE(RelativeDifference(state.at("fresh_variance"),
                               Concatenate(oracle, &Tensor::fresh_v)),
            tolerance);
  for (size_t l = 0; l < oracle.tensors().size(); ++l) {
    const Tensor& tensor = oracle.tensors()[l];
    EXPECT_NEAR(state.at("coefficient")[l], tensor.c_frozen,
                tolerance * tensor.c_frozen);
    EXPECT_NEAR(state.at("factor")[l], tensor.r_last,
                tolerance * tensor.r_last);
    EXPECT_NEAR(state.at("sigma")[l], tensor.sigma, tolerance * tensor.sigma);
  }
}

// Ranks, decay, clipping norm, whether work is dropped.
using Case = std::tuple<int, double, double, bool>;

class OneBitLambOracleTest : public ::testing::TestWithParam<Case> {
 protected:
  OneBitLambOracleTest()
      : num_ranks_(std::get<0>(GetParam())),
        max_norm_(std::get<2>(GetParam())),
        options_(Options(std::get<1>(GetParam()))),
        layout_(LayoutOf({7, 143, 1, 257, 33})),
        problem_(layout_, kSeed),
        oracle_(options_, layout_, num_ranks_, problem_.start()) {}

  template <typename Real>
  std::vector<std::vector<Real>> Gradients(
      int64_t step, const std::vector<Real>& weights) const {
    return GradientsOf<Real>(problem_, step, num_ranks_,
                             std::get<3>(GetParam()), {weights});
  }

  const int num_ranks_;
  const double max_norm_;
  const OptimizerOptions options_;
  const ParameterLayout layout_;
  const ToyProblem problem_;
  OneBitLambTranscription oracle_;
};

TEST_P(OneBitLambOracleTest, DoubleKernelsEqualTheTranscription) {
  OneBitReplicas<double> replicas(options_, layout_, num_ranks_,
                                  problem_.start());

  for (int64_t step = 0; step < kSteps; ++step) {
    const auto gradients = Gradients<double>(step, replicas.weights()[0]);
    oracle_.Step(Gradients<double>(step, oracle_.Weights()), kRate, max_norm_);
    replicas.Step(step, gradients, kRate, max_norm_);
    ASSERT_TRUE(ReplicasAreEqual(replicas.weights())) << "step " << step;
    ASSERT_NEAR(replicas.last_norm(), oracle_.last_norm(),
                1e-12 * oracle_.last_norm())
        << "step " << step;
    ASSERT_LE(RelativeDifference(replicas.weights()[0], oracle_.Weights()),
              1e-12)
        << "step " << step;
  }

  ExpectStateNear(replicas, oracle_, 1e-12);
}

TEST_P(OneBitLambOracleTest, FloatEqualsTheTranscriptionThatReplaysItsSigns) {
  OneBitReplicas<float> replicas(options_, layout_, num_ranks_,
                                 problem_.start());

  for (int64_t step = 0; step < kSteps; ++step) {
    replicas.Step(step, Gradients<float>(step, replicas.weights()[0]), kRate,
                  max_norm_);
    oracle_.Step(Gradients<double>(step, oracle_.Weights()), kRate, max_norm_,
                 step < kCompressAfter ? nullptr : &replicas.signs());
    ASSERT_TRUE(ReplicasAreEqual(replicas.weights())) << "step " << step;
    ASSERT_LE(RelativeDifference(replicas.weights()[0], oracle_.Weights()),
              1e-5)
        << "step " << step;
  }

  // Squares and ratios of what is within 1e-5.
  ExpectStateNear(replicas, oracle_, 3e-5);
  EXPECT_LE(oracle_.all_reduce().worst_difference(), 1e-5);
  RecordProperty("differing_signs",
                 static_cast<int>(oracle_.all_reduce().num_differing_signs()));
}

// What the tests above say of the kernels in one thread holds of the
// collective.
class OneBitLambCollectiveTest : public OneBitLambOracleTest {};

TEST_P(OneBitLambCollectiveTest, GradientSyncGivesTheSameBitsAsTheKernels) {
  OneBitReplicas<float> replicas(options_, layout_, num_ranks_,
                                 problem_.start());
  LoopbackRanks ranks = *LoopbackRanks::Create(num_ranks_);
  std::vector<std::unique_ptr<GradientSync>> syncs;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    auto sync =
        GradientSync::Create({}, ranks.group(rank), layout_.num_elements);
    ASSERT_TRUE(sync.ok()) << sync.status();
    syncs.push_back(*std::move(sync));
  }
  int64_t num_compared = 0;
  replicas.set_observer([&](int64_t step, const auto& brought,
                            const std::vector<float>& result) {
    ++num_compared;
    ranks.Run([&](int rank) {
      std::vector<float> values = brought[static_cast<size_t>(rank)];
      GradientSync& sync = *syncs[static_cast<size_t>(rank)];
      ASSERT_TRUE(sync.Begin(static_cast<uint32_t>(step),
                             {absl::MakeSpan(values), SyncFormat::kCompressed})
                      .ok());
      const absl::Status status =
          sync.Wait(Deadline::After(std::chrono::seconds(20)));
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_TRUE(sync.Finish(SyncVerdict::kCommit).ok());
      EXPECT_TRUE(ReplicasAreEqual<float>({values, result}));
    });
  });

  for (int64_t step = 0; step < kCompressAfter + 20; ++step) {
    replicas.Step(step, Gradients<float>(step, replicas.weights()[0]), kRate,
                  max_norm_);
  }

  EXPECT_EQ(num_compared, 20);
}

INSTANTIATE_TEST_SUITE_P(
    RanksDecayClipping, OneBitLambOracleTest,
    ::testing::Combine(::testing::Range(1, 9), ::testing::Values(0.0, 0.01),
                       ::testing::Values(0.0, 10.0), ::testing::Bool()),
    [](const auto& info) {
      return absl::StrCat("Ranks", std::get<0>(info.param),
                          std::get<1>(info.param) > 0 ? "Decay" : "NoDecay",
                          std::get<2>(info.param) > 0 ? "Clip" : "NoClip",
                          std::get<3>(info.param) ? "Dropped" : "Whole");
    });

INSTANTIATE_TEST_SUITE_P(
    Ranks, OneBitLambCollectiveTest,
    ::testing::Combine(::testing::Values(1, 2, 3, 4), ::testing::Values(0.01),
                       ::testing::Values(0.0), ::testing::Values(false)),
    [](const auto& info) {
      return absl::StrCat("Ranks", std::get<0>(info.param));
    });

// Fewer elements than 8 for each rank: most ranks own no shard.
TEST(OneBitLambTinyTest, DoubleKernelsEqualTheTranscription) {
  const ParameterLayout layout = LayoutOf({3, 11, 2});
  const ToyProblem problem(layout, kSeed);
  const OptimizerOptions options = Options(0.01);
  for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
    OneBitLambTranscription oracle(options, layout, num_ranks, problem.start());
    OneBitReplicas<double> replicas(options, layout, num_ranks,
                                    problem.start());

    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<std::vector<double>> product;
      std::vector<std::vector<double>> plain;
      for (int rank = 0; rank < num_ranks; ++rank) {
        product.push_back(problem.Gradient(rank, step, replicas.weights()[0]));
        plain.push_back(problem.Gradient(rank, step, oracle.Weights()));
      }
      replicas.Step(step, product, kRate, 0);
      oracle.Step(plain, kRate, 0);
    }

    ExpectStateNear(replicas, oracle, 1e-12);
  }
}

TEST(OneBitLambGroupsTest, DoubleKernelsEqualTheTranscription) {
  const ParameterLayout layout = WithGroups(LayoutOf({7, 143, 1, 257, 33}));
  const ToyProblem problem(layout, kSeed);
  for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
    OneBitLambTranscription oracle(Options(0.01), layout, num_ranks,
                                   problem.start());
    OneBitReplicas<double> replicas(Options(0.01), layout, num_ranks,
                                    problem.start());

    for (int64_t step = 0; step < kSteps; ++step) {
      replicas.Step(step,
                    GradientsOf<double>(problem, step, num_ranks, false,
                                        {replicas.weights()[0]}),
                    kRate, 10);
      oracle.Step(GradientsOf<double>(problem, step, num_ranks, false,
                                      {oracle.Weights()}),
                  kRate, 10);
    }

    ExpectStateNear(replicas, oracle, 1e-12);
    EXPECT_EQ(replicas.weights()[0][150], problem.start()[150]) << "frozen";
  }
}

/// Drives one replica past its freeze and leaves it with a prepared step.
class OneBitLambTest : public ::testing::Test {
 protected:
  OneBitLambTest()
      : layout_(LayoutOf({40, 9})),
        problem_(layout_, kSeed),
        weights_(problem_.start().begin(), problem_.start().end()) {
    options_ = Options(0.01);
    options_.compress_after_step = 3;
  }

  void Run(OneBitLamb<float>* optimizer, int64_t from, int64_t to) {
    for (int64_t step = from; step < to; ++step) {
      gradient_ = problem_.Gradient(0, step, weights_);
      optimizer->Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
      optimizer->Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
    }
  }

  OptimizerOptions options_;
  const ParameterLayout layout_;
  const ToyProblem problem_;
  std::vector<float> weights_;
  std::vector<float> gradient_;
};

TEST_F(OneBitLambTest, WithoutClippingTheMomentumIsTheSynchronisedOne) {
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 5);
  gradient_ = problem_.Gradient(0, 5, weights_);
  const auto request =
      optimizer.Prepare(5, kRate, weights_, absl::MakeSpan(gradient_));
  for (float& value : request.values) value = value > 0 ? 0.7f : -0.7f;
  const std::vector<float> sigma = optimizer.ExportState()["sigma"];

  optimizer.Apply(5, kRate, 1.0, absl::MakeSpan(weights_));

  const std::vector<float> momentum = optimizer.ExportState()["momentum"];
  for (size_t i = 0; i < momentum.size(); ++i) {
    EXPECT_EQ(std::abs(momentum[i]), 0.7f / sigma[i < 40 ? 0 : 1]);
  }
}

TEST_F(OneBitLambTest, VarianceIsFrozenOnceCompressed) {
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 3);
  const std::vector<float> variance = optimizer.ExportState()["variance"];

  Run(&optimizer, 3, 6);

  EXPECT_EQ(optimizer.ExportState()["variance"], variance);
  EXPECT_NE(optimizer.ExportState()["fresh_variance"], variance);
}

TEST_F(OneBitLambTest, FirstCompressedStepIsTheOneOfTheOptions) {
  OneBitLamb<float> optimizer(options_, layout_);

  for (int64_t step = 0; step < 5; ++step) {
    gradient_ = problem_.Gradient(0, step, weights_);
    const auto request =
        optimizer.Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
    EXPECT_EQ(request.format,
              step < 3 ? SyncFormat::kPlain : SyncFormat::kCompressed);
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
  }
}

TEST_F(OneBitLambTest, SkippedFreezeIsUndone) {
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 3);
  const auto before = optimizer.ExportState();

  gradient_ = problem_.Gradient(0, 3, weights_);
  optimizer.Prepare(3, kRate, weights_, absl::MakeSpan(gradient_));
  optimizer.Skip();

  EXPECT_EQ(optimizer.ExportState(), before);
}

// A tensor that never had a gradient: sigma is 1, and nothing becomes infinite.
TEST_F(OneBitLambTest, AllZeroMomentumAtTheFreezeHasSigmaOne) {
  OneBitLamb<float> optimizer(options_, layout_);
  for (int64_t step = 0; step < 6; ++step) {
    gradient_ = problem_.Gradient(0, step, weights_);
    std::fill(gradient_.begin() + 40, gradient_.end(), 0.0f);
    optimizer.Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
  }

  const std::vector<float> sigma = optimizer.ExportState()["sigma"];
  EXPECT_EQ(sigma[1], 1.0f);
  // It does not count in the mean: sigma_0 = q_0 / q_0.
  EXPECT_FLOAT_EQ(sigma[0], 1.0f);
  for (const float weight : weights_) EXPECT_TRUE(std::isfinite(weight));
}

// Its coefficient from the warm-up, where it had no gradient, says nothing.
TEST_F(OneBitLambTest, ATensorThatWakesHasCoefficientOne) {
  OneBitLamb<float> optimizer(options_, layout_);
  for (int64_t step = 0; step < 6; ++step) {
    gradient_ = problem_.Gradient(0, step, weights_);
    std::fill(gradient_.begin() + 40, gradient_.end(), 0.0f);
    optimizer.Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
    if (step == 5) optimizer.Wake({1});
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
  }

  const auto state = optimizer.ExportState();
  EXPECT_EQ(state.at("coefficient")[1], 1.0f);
  double sum = 0;
  for (size_t i = 0; i < 40; ++i) sum += double{state.at("variance")[i]};
  EXPECT_FLOAT_EQ(state.at("variance")[48], static_cast<float>(sum / 40));
  EXPECT_EQ(state.at("fresh_variance")[48], state.at("variance")[48]);
}

TEST_F(OneBitLambTest, VanishingMomentumAtTheFreezeHasSigmaOne) {
  OneBitLamb<float> optimizer(options_, layout_);
  for (int64_t step = 0; step < 5; ++step) {
    gradient_ = problem_.Gradient(0, step, weights_);
    std::fill(gradient_.begin() + 40, gradient_.end(), 1e-43f);
    optimizer.Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
  }

  EXPECT_EQ(optimizer.ExportState()["sigma"][1], 1.0f);
  for (const float weight : weights_) EXPECT_TRUE(std::isfinite(weight));
}

TEST_F(OneBitLambTest, SigmaEqualisesTheMomentaOfTensors) {
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 3);
  std::vector<float> momentum = optimizer.ExportState()["momentum"];
  gradient_ = problem_.Gradient(0, 3, weights_);
  optimizer.Prepare(3, kRate, weights_, absl::MakeSpan(gradient_));
  const std::vector<float> sigma = optimizer.ExportState()["sigma"];

  double rms[2] = {};
  for (size_t i = 0; i < momentum.size(); ++i) {
    const size_t l = i < 40 ? 0 : 1;
    rms[l] += std::pow(double{momentum[i]} * sigma[l], 2) / (l == 0 ? 40 : 9);
  }

  EXPECT_NEAR(std::sqrt(rms[0]), std::sqrt(rms[1]), 1e-6);
}

TEST_F(OneBitLambTest, ADecisionOverridesTheStepOfTheOptions) {
  options_.compress_after_step = kCompressByDecision;
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 6);
  const auto format_of = [&](int64_t step) {
    gradient_ = problem_.Gradient(0, step, weights_);
    const auto request =
        optimizer.Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
    return request.format;
  };

  EXPECT_EQ(format_of(6), SyncFormat::kPlain);
  optimizer.SetCompressing(true);
  EXPECT_EQ(format_of(7), SyncFormat::kCompressed);
  optimizer.SetCompressing(false);
  EXPECT_EQ(format_of(8), SyncFormat::kPlain);
}

TEST_F(OneBitLambTest, FullPrecisionGoesOnWithTheFreshVariance) {
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 6);
  const auto compressed = optimizer.ExportState();

  optimizer.SetCompressing(false);

  const auto state = optimizer.ExportState();
  EXPECT_EQ(state.at("variance"), compressed.at("fresh_variance"));
  EXPECT_EQ(state.at("momentum"), compressed.at("momentum"));
  EXPECT_EQ(state.at("frozen")[0], 0);
}

// Sigma is another after the second freeze, and so is what residuals measure.
TEST_F(OneBitLambTest, EachFreezeDropsResiduals) {
  OneBitLamb<float> optimizer(options_, layout_);
  const auto resets_at = [&](int64_t step) {
    gradient_ = problem_.Gradient(0, step, weights_);
    const auto request =
        optimizer.Prepare(step, kRate, weights_, absl::MakeSpan(gradient_));
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights_));
    return request.resets_residuals;
  };
  Run(&optimizer, 0, 3);

  EXPECT_TRUE(resets_at(3));
  EXPECT_FALSE(resets_at(4));
  optimizer.SetCompressing(false);
  EXPECT_FALSE(resets_at(5));
  optimizer.SetCompressing(true);
  EXPECT_TRUE(resets_at(6));
  EXPECT_FALSE(resets_at(7));
}

TEST_F(OneBitLambTest, EvidenceIsOfVarianceCoefficientsAndFactors) {
  options_.factor_min = 1;  // every factor lies at a limit
  options_.factor_max = 1;
  OneBitLamb<float> optimizer(options_, layout_);
  Run(&optimizer, 0, 3);
  const auto state = optimizer.ExportState();
  double sum = 0;
  for (const float value : state.at("variance")) sum += double{value};
  double spread = 0;
  for (size_t l = 0; l < 2; ++l) {
    spread += std::sqrt(double{state.at("coefficient_variance")[l]}) /
              double{state.at("coefficient")[l]};
  }

  const CompressionEvidence warm = optimizer.Evidence();
  Run(&optimizer, 3, 5);
  const CompressionEvidence compressed = optimizer.Evidence();

  EXPECT_DOUBLE_EQ(warm.variance_sum, sum);
  EXPECT_EQ(warm.num_coefficients, 2);
  EXPECT_DOUBLE_EQ(warm.coefficient_spread_sum, spread);
  EXPECT_EQ(warm.num_factors, 0);
  EXPECT_EQ(compressed.num_factors, 2);
  EXPECT_EQ(compressed.num_factors_at_limit, 2);
}

}  // namespace
}  // namespace deltapipe
