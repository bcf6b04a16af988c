#include "worker/optim/zero_one_adam.h"

#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/optim/testing/onebit_replicas.h"
#include "worker/optim/testing/replica_comparison.h"
#include "worker/optim/testing/toy_problem.h"
#include "worker/optim/testing/zero_one_adam_transcription.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;

constexpr uint64_t kSeed = 2202;
constexpr int64_t kSteps = 200;
constexpr int64_t kVarianceFreeze = 100;
constexpr double kRate = 1e-3;

// Intervals change at odd steps, too. In stage B h is 1, 2, 4.
OptimizerOptions Options(double weight_decay) {
  OptimizerOptions options;
  options.kind = "zero_one_adam";
  options.weight_decay = weight_decay;
  options.compress_after_step = kVarianceFreeze;
  options.variance_update_scaler = 7;
  options.local_step_scaler = 25;
  options.local_step_clipper = 4;
  options.num_steps = kSteps;
  return options;
}

/// Varies, so that the mean over several steps is a weighted one.
double RateAt(int64_t step) { return kRate * (1 + 0.5 * double(step % 3)); }

using Case = std::tuple<int, double, bool>;  // ranks, decay, drops work

class ZeroOneAdamOracleTest : public ::testing::TestWithParam<Case> {
 protected:
  ZeroOneAdamOracleTest()
      : num_ranks_(std::get<0>(GetParam())),
        drops_work_(std::get<2>(GetParam())),
        options_(Options(std::get<1>(GetParam()))),
        layout_(LayoutOf({7, 143, 1, 257, 33})),
        problem_(layout_, kSeed),
        oracle_(options_, layout_, num_ranks_, problem_.start()) {
    RecordProperty("seed", static_cast<int>(kSeed));
  }

  // Each rank's gradient at its own weights.
  template <typename Real>
  std::vector<std::vector<Real>> Gradients(
      int64_t step, const std::vector<std::vector<Real>>& weights) const {
    return GradientsOf<Real>(problem_, step, num_ranks_, drops_work_, weights);
  }
  std::vector<std::vector<double>> OracleWeights() const {
    std::vector<std::vector<double>> weights;
    for (const auto& rank : oracle_.ranks()) weights.push_back(rank.w);
    return weights;
  }

  const int num_ranks_;
  const bool drops_work_;
  const OptimizerOptions options_;
  const ParameterLayout layout_;
  const ToyProblem problem_;
  ZeroOneAdamTranscription oracle_;
};

TEST_P(ZeroOneAdamOracleTest, DoubleKernelsEqualTheTranscription) {
  OneBitReplicas<double> replicas(options_, layout_, num_ranks_,
                                  problem_.start());

  for (int64_t step = 0; step < kSteps; ++step) {
    const auto gradients = Gradients<double>(step, replicas.weights());
    const bool is_compressed =
        oracle_.Step(Gradients<double>(step, OracleWeights()), RateAt(step));
    replicas.Step(step, gradients, RateAt(step), 0);
    ASSERT_EQ(replicas.last_format() == SyncFormat::kCompressed, is_compressed)
        << "step " << step;
    ASSERT_EQ(replicas.optimizer(0).AreReplicasEqual(),
              oracle_.is_synchronized())
        << "step " << step;
    if (oracle_.is_synchronized()) {
      ASSERT_TRUE(ReplicasAreEqual(replicas.weights())) << "step " << step;
    }
    for (size_t rank = 0; rank < oracle_.ranks().size(); ++rank) {
      ASSERT_LE(
          RelativeDifference(replicas.weights()[rank], oracle_.ranks()[rank].w),
          1e-12)
          << "step " << step << ", rank " << rank;
    }
  }

  const auto state = replicas.optimizer(0).ExportState();
  EXPECT_LE(RelativeDifference(state.at("momentum"), oracle_.ranks()[0].m),
            1e-11);
  EXPECT_LE(RelativeDifference(state.at("variance"), oracle_.ranks()[0].v),
            1e-12);
}

TEST_P(ZeroOneAdamOracleTest, FloatEqualsTheTranscriptionThatReplaysItsSigns) {
  OneBitReplicas<float> replicas(options_, layout_, num_ranks_,
                                 problem_.start());

  for (int64_t step = 0; step < kSteps; ++step) {
    replicas.Step(step, Gradients<float>(step, replicas.weights()),
                  RateAt(step), 0);
    oracle_.Step(Gradients<double>(step, OracleWeights()), RateAt(step),
                 &replicas.signs());
    for (size_t rank = 0; rank < oracle_.ranks().size(); ++rank) {
      ASSERT_LE(
          RelativeDifference(replicas.weights()[rank], oracle_.ranks()[rank].w),
          1e-5)
          << "step " << step << ", rank " << rank;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    RanksDecayWork, ZeroOneAdamOracleTest,
    ::testing::Combine(::testing::Range(1, 9), ::testing::Values(0.0, 0.01),
                       ::testing::Bool()),
    [](const auto& info) {
      return absl::StrCat("Ranks", std::get<0>(info.param),
                          std::get<1>(info.param) > 0 ? "Decay" : "NoDecay",
                          std::get<2>(info.param) ? "Dropped" : "Whole");
    });

TEST(ZeroOneAdamGroupsTest, DoubleKernelsEqualTheTranscription) {
  const ParameterLayout layout = WithGroups(LayoutOf({7, 143, 1, 257, 33}));
  const ToyProblem problem(layout, kSeed);
  for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
    ZeroOneAdamTranscription oracle(Options(0.01), layout, num_ranks,
                                    problem.start());
    OneBitReplicas<double> replicas(Options(0.01), layout, num_ranks,
                                    problem.start());

    for (int64_t step = 0; step < kSteps; ++step) {
      std::vector<std::vector<double>> weights;
      for (const auto& rank : oracle.ranks()) weights.push_back(rank.w);
      oracle.Step(GradientsOf<double>(problem, step, num_ranks, false, weights),
                  RateAt(step));
      replicas.Step(step,
                    GradientsOf<double>(problem, step, num_ranks, false,
                                        replicas.weights()),
                    RateAt(step), 0);
      for (size_t rank = 0; rank < oracle.ranks().size(); ++rank) {
        ASSERT_LE(RelativeDifference(replicas.weights()[rank],
                                     oracle.ranks()[rank].w),
                  1e-12)
            << "step " << step << ", rank " << rank << " of " << num_ranks;
      }
    }
    EXPECT_EQ(replicas.weights()[0][150], problem.start()[150]) << "frozen";
  }
}

class ZeroOneAdamTest : public ::testing::Test {
 protected:
  ZeroOneAdamTest()
      : layout_(LayoutOf({40, 9})),
        problem_(layout_, kSeed),
        options_(Options(0.01)) {
    options_.num_steps = 0;
    options_.compress_after_step = 6;
    options_.variance_update_scaler = 2;
    options_.local_step_scaler = 3;
  }

  void Step(OneBitReplicas<float>* replicas, int64_t step,
            double max_norm = 0) const {
    replicas->Step(
        step, GradientsOf<float>(problem_, step, 2, false, replicas->weights()),
        kRate, max_norm);
  }

  const ParameterLayout layout_;
  const ToyProblem problem_;
  OptimizerOptions options_;
};

TEST_F(ZeroOneAdamTest, StepsTravelAsTheIntervalsSay) {
  OneBitReplicas<float> replicas(options_, layout_, 2, problem_.start());
  std::vector<int> formats;
  std::vector<int64_t> resets;

  for (int64_t step = 0; step < 18; ++step) {
    Step(&replicas, step);
    formats.push_back(static_cast<int>(replicas.last_format()));
    if (replicas.last_reset_residuals()) resets.push_back(step);
  }

  const int none = 0, plain = 1, bits = 2;
  EXPECT_THAT(formats,
              ElementsAre(plain, plain, bits, plain, bits, plain,  // stage A
                          bits, bits, bits, bits, none, bits,      // h = 1, 2
                          none, none, none, bits, none, none));    // h = 4
  EXPECT_THAT(resets, ElementsAre(6));
}

TEST_F(ZeroOneAdamTest, TheLastStepIsASynchronisationPointInAnyCase) {
  for (int64_t num_steps = 7; num_steps < 30; ++num_steps) {
    options_.num_steps = num_steps;
    OneBitReplicas<float> replicas(options_, layout_, 2, problem_.start());

    for (int64_t step = 0; step < num_steps; ++step) Step(&replicas, step);

    EXPECT_EQ(replicas.last_format(), SyncFormat::kCompressed) << num_steps;
    EXPECT_TRUE(replicas.optimizer(0).AreReplicasEqual());
    EXPECT_TRUE(ReplicasAreEqual(replicas.weights())) << num_steps;
  }
}

TEST_F(ZeroOneAdamTest, ReplicasPartBetweenSynchronisationPointsAlone) {
  OneBitReplicas<float> replicas(options_, layout_, 2, problem_.start());

  for (int64_t step = 0; step < 40; ++step) {
    Step(&replicas, step);

    ASSERT_EQ(replicas.optimizer(0).AreReplicasEqual(),
              ReplicasAreEqual(replicas.weights()))
        << "step " << step;
  }
}

// What arrives clipped at a synchronisation point has a mean gradient of the
// clipping norm: the momentum it leaves is a m0 + (1 - a) clip g^.
TEST_F(ZeroOneAdamTest, ClippingAtASynchronisationPointScalesTheMeanGradient) {
  options_.weight_decay = 0;
  OneBitReplicas<double> replicas(options_, layout_, 1, problem_.start());
  for (int64_t step = 0; step < 10; ++step) {
    replicas.Step(
        step, GradientsOf<double>(problem_, step, 1, false, replicas.weights()),
        kRate, 0);
  }
  const auto before = replicas.optimizer(0).ExportState().at("momentum");
  for (int64_t step = 10; step < 12; ++step) {  // a local step, then the point
    replicas.Step(
        step, GradientsOf<double>(problem_, step, 1, false, replicas.weights()),
        kRate, step == 11 ? 1.5 : 0);
  }

  ASSERT_TRUE(replicas.optimizer(0).AreReplicasEqual());
  ASSERT_GT(replicas.last_norm(), 1.5);
  const auto after = replicas.optimizer(0).ExportState().at("momentum");
  const double a = (0.9 + 0.81) / 2;
  double squares = 0;
  for (size_t i = 0; i < after.size(); ++i) {
    squares += std::pow((after[i] - a * before[i]) / (1 - a), 2);
  }
  EXPECT_NEAR(std::sqrt(squares), 1.5, 1e-9);
}

TEST_F(ZeroOneAdamTest, ASkippedSynchronisationPointIsMadeUpFor) {
  std::vector<float> weights(problem_.start().begin(), problem_.start().end());
  ZeroOneAdam<float> optimizer(options_, layout_);
  const auto prepare = [&](int64_t step, std::vector<float>* gradient) {
    *gradient = problem_.Gradient(0, step, weights);
    return optimizer.Prepare(step, kRate, weights, absl::MakeSpan(*gradient))
        .format;
  };
  std::vector<float> gradient;
  for (int64_t step = 0; step < 11; ++step) {
    prepare(step, &gradient);
    optimizer.Apply(step, kRate, 1.0, absl::MakeSpan(weights));
  }
  ASSERT_FALSE(optimizer.AreReplicasEqual());

  ASSERT_EQ(prepare(11, &gradient), SyncFormat::kCompressed);
  optimizer.Skip();

  EXPECT_EQ(prepare(12, &gradient), SyncFormat::kCompressed);
}

TEST_F(ZeroOneAdamTest, ADecisionTakesEffectAtASynchronisationPoint) {
  options_.compress_after_step = kCompressByDecision;
  OneBitReplicas<float> replicas(options_, layout_, 2, problem_.start());
  const auto decide = [&](bool on) {
    for (int rank = 0; rank < 2; ++rank) {
      replicas.optimizer(rank).SetCompressing(on);
    }
  };
  for (int64_t step = 0; step < 4; ++step) Step(&replicas, step);
  decide(true);
  for (int64_t step = 4; step < 9; ++step) Step(&replicas, step);
  ASSERT_FALSE(replicas.optimizer(0).AreReplicasEqual());

  decide(false);
  Step(&replicas, 9);
  EXPECT_EQ(replicas.last_format(), SyncFormat::kCompressed);
  EXPECT_TRUE(ReplicasAreEqual(replicas.weights()));

  Step(&replicas, 10);
  EXPECT_EQ(replicas.last_format(), SyncFormat::kPlain);
  Step(&replicas, 11);
  EXPECT_EQ(replicas.last_format(), SyncFormat::kPlain);
  Step(&replicas, 12);
  EXPECT_EQ(replicas.last_format(), SyncFormat::kCompressed);
  EXPECT_TRUE(replicas.last_reset_residuals());
}

// After 12 steps the variance is updated in every eighth one.
TEST_F(ZeroOneAdamTest, AfterADecisionToGoBackTheVarianceIsUpdatedOftenAgain) {
  options_.compress_after_step = kCompressByDecision;
  OneBitReplicas<float> replicas(options_, layout_, 2, problem_.start());
  const auto decide = [&](bool on) {
    for (int rank = 0; rank < 2; ++rank) {
      replicas.optimizer(rank).SetCompressing(on);
    }
  };
  for (int64_t step = 0; step < 12; ++step) Step(&replicas, step);
  decide(true);
  for (int64_t step = 12; step < 15; ++step) Step(&replicas, step);
  ASSERT_TRUE(replicas.optimizer(0).AreReplicasEqual());

  decide(false);

  std::vector<SyncFormat> formats;
  for (int64_t step = 15; step < 20; ++step) {
    Step(&replicas, step);
    formats.push_back(replicas.last_format());
  }
  const SyncFormat plain = SyncFormat::kPlain;
  EXPECT_THAT(formats,
              ElementsAre(plain, plain, plain, SyncFormat::kCompressed, plain));
}

}  // namespace
}  // namespace deltapipe
