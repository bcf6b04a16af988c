#include "worker/optim/onebit_adam.h"

#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "worker/optim/testing/onebit_adam_transcription.h"
#include "worker/optim/testing/onebit_replicas.h"
#include "worker/optim/testing/replica_comparison.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

constexpr uint64_t kSeed = 2102;
constexpr int64_t kSteps = 200;
constexpr int64_t kCompressAfter = 100;
constexpr double kRate = 1e-3;

OptimizerOptions Options(double weight_decay) {
  OptimizerOptions options;
  options.kind = "onebit_adam";
  options.weight_decay = weight_decay;
  options.compress_after_step = kCompressAfter;
  return options;
}

// Ranks, decay, clipping norm, whether work is dropped.
using Case = std::tuple<int, double, double, bool>;

class OneBitAdamOracleTest : public ::testing::TestWithParam<Case> {
 protected:
  OneBitAdamOracleTest()
      : num_ranks_(std::get<0>(GetParam())),
        max_norm_(std::get<2>(GetParam())),
        drops_work_(std::get<3>(GetParam())),
        options_(Options(std::get<1>(GetParam()))),
        layout_(LayoutOf({7, 143, 1, 257, 33})),
        problem_(layout_, kSeed),
        oracle_(options_, layout_, num_ranks_, problem_.start()) {
    RecordProperty("seed", static_cast<int>(kSeed));
  }

  template <typename Real>
  std::vector<std::vector<Real>> Gradients(
      int64_t step, const std::vector<Real>& weights) const {
    return GradientsOf<Real>(problem_, step, num_ranks_, drops_work_,
                             {weights});
  }

  const int num_ranks_;
  const double max_norm_;
  const bool drops_work_;
  const OptimizerOptions options_;
  const ParameterLayout layout_;
  const ToyProblem problem_;
  OneBitAdamTranscription oracle_;
};

TEST_P(OneBitAdamOracleTest, DoubleKernelsEqualTheTranscription) {
  OneBitReplicas<double> replicas(options_, layout_, num_ranks_,
                                  problem_.start());

  for (int64_t step = 0; step < kSteps; ++step) {
    const auto gradients = Gradients<double>(step, replicas.weights()[0]);
    oracle_.Step(Gradients<double>(step, oracle_.w), kRate, max_norm_);
    replicas.Step(step, gradients, kRate, max_norm_);
    ASSERT_TRUE(ReplicasAreEqual(replicas.weights())) << "step " << step;
    ASSERT_NEAR(replicas.last_norm(), oracle_.last_norm(),
                1e-12 * oracle_.last_norm())
        << "step " << step;
    ASSERT_LE(RelativeDifference(replicas.weights()[0], oracle_.w), 1e-12)
        << "step " << step;
  }

  const auto state = replicas.optimizer(0).ExportState();
  EXPECT_LE(RelativeDifference(state.at("momentum"), oracle_.m), 1e-12);
  EXPECT_LE(RelativeDifference(state.at("variance"), oracle_.v), 1e-12);
}

TEST_P(OneBitAdamOracleTest, FloatEqualsTheTranscriptionThatReplaysItsSigns) {
  OneBitReplicas<float> replicas(options_, layout_, num_ranks_,
                                 problem_.start());

  for (int64_t step = 0; step < kSteps; ++step) {
    replicas.Step(step, Gradients<float>(step, replicas.weights()[0]), kRate,
                  max_norm_);
    oracle_.Step(Gradients<double>(step, oracle_.w), kRate, max_norm_,
                 step < kCompressAfter ? nullptr : &replicas.signs());
    ASSERT_TRUE(ReplicasAreEqual(replicas.weights())) << "step " << step;
    ASSERT_LE(RelativeDifference(replicas.weights()[0], oracle_.w), 1e-5)
        << "step " << step;
  }

  EXPECT_LE(oracle_.all_reduce().worst_difference(), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(
    RanksDecayClippingWork, OneBitAdamOracleTest,
    ::testing::Combine(::testing::Range(1, 9), ::testing::Values(0.0, 0.01),
                       ::testing::Values(0.0, 10.0), ::testing::Bool()),
    [](const auto& info) {
      return absl::StrCat("Ranks", std::get<0>(info.param),
                          std::get<1>(info.param) > 0 ? "Decay" : "NoDecay",
                          std::get<2>(info.param) > 0 ? "Clip" : "NoClip",
                          std::get<3>(info.param) ? "Dropped" : "Whole");
    });

TEST(OneBitAdamTest, GroupsEqualTheTranscription) {
  const ParameterLayout layout = WithGroups(LayoutOf({7, 143, 1, 257, 33}));
  const ToyProblem problem(layout, kSeed);
  for (int num_ranks = 1; num_ranks <= 4; ++num_ranks) {
    OneBitAdamTranscription oracle(Options(0.01), layout, num_ranks,
                                   problem.start());
    OneBitReplicas<double> replicas(Options(0.01), layout, num_ranks,
                                    problem.start());

    for (int64_t step = 0; step < kSteps; ++step) {
      replicas.Step(step,
                    GradientsOf<double>(problem, step, num_ranks, false,
                                        {replicas.weights()[0]}),
                    kRate, 10);
      oracle.Step(
          GradientsOf<double>(problem, step, num_ranks, false, {oracle.w}),
          kRate, 10);
      ASSERT_LE(RelativeDifference(replicas.weights()[0], oracle.w), 1e-12)
          << "step " << step << " of " << num_ranks << " ranks";
    }
    EXPECT_EQ(replicas.weights()[0][150], problem.start()[150]) << "frozen";
  }
}

TEST(OneBitAdamTest, FullPrecisionGoesOnWithTheFrozenVariance) {
  const ParameterLayout layout = LayoutOf({40, 9});
  const ToyProblem problem(layout, kSeed);
  OptimizerOptions options = Options(0.01);
  options.compress_after_step = 3;
  OneBitReplicas<float> replicas(options, layout, 2, problem.start());
  const auto step = [&](int64_t index) {
    replicas.Step(
        index, GradientsOf<float>(problem, index, 2, false, replicas.weights()),
        kRate, 0);
  };
  const auto variance = [&] {
    return replicas.optimizer(0).ExportState().at("variance");
  };
  for (int64_t i = 0; i < 3; ++i) step(i);
  const std::vector<float> frozen = variance();
  for (int64_t i = 3; i < 6; ++i) step(i);
  ASSERT_EQ(variance(), frozen);

  for (int rank = 0; rank < 2; ++rank) {
    replicas.optimizer(rank).SetCompressing(false);
  }

  EXPECT_EQ(variance(), frozen);
  step(6);
  EXPECT_EQ(replicas.last_format(), SyncFormat::kPlain);
  EXPECT_NE(variance(), frozen);
  EXPECT_TRUE(ReplicasAreEqual(replicas.weights()));
}

// Beside the transcription: a stage without elements, and one without a live
// one, can be compressed.
TEST(OneBitAdamTest, AStageWithoutGradientsRests) {
  const ParameterLayout layout = LayoutOf({4, 3});
  OptimizerOptions options = Options(0);
  options.compress_after_step = 2;
  const std::vector<double> start(7, 1.0);
  OneBitReplicas<float> replicas(options, layout, 2, start);

  for (int64_t step = 0; step < 6; ++step) {
    replicas.Step(step, {2, std::vector<float>(7)}, kRate, 0);
  }

  EXPECT_EQ(replicas.num_excluded(), 2);
  EXPECT_EQ(replicas.last_norm(), 0);
  EXPECT_EQ(replicas.weights()[1], std::vector<float>(7, 1.0f));
}

}  // namespace
}  // namespace deltapipe
