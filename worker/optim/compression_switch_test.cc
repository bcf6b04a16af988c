#include "worker/optim/compression_switch.h"

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/engine/gradient_norm.h"
#include "worker/optim/learning_rate.h"
#include "worker/optim/testing/onebit_replicas.h"
#include "worker/optim/testing/replica_comparison.h"
#include "worker/optim/testing/toy_problem.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

CompressionSwitch MakeSwitch(const CompressionSwitchOptions& options) {
  auto compression = CompressionSwitch::Create(options);
  EXPECT_TRUE(compression.ok()) << compression.status();
  return *compression;
}

// A window of 20 steps, checked every 10.
CompressionSwitchOptions Options() {
  CompressionSwitchOptions options;
  options.beta2 = 0.95;
  return options;
}

CompressionEvidence OfVariance(double sum) {
  CompressionEvidence evidence;
  evidence.variance_sum = sum;
  return evidence;
}

/// Feeds the steps [begin, end); returns the number of steps after which the
/// switch turned, or -1.
int64_t TurnsAfter(CompressionSwitch* compression, int64_t begin, int64_t end,
                   const std::function<CompressionEvidence(int64_t)>& at) {
  for (int64_t step = begin; step < end; ++step) {
    if (!compression->WantsEvidence(step)) continue;
    if (!compression->Update(step, at(step)).empty()) return step + 1;
  }
  return -1;
}

TEST(CompressionSwitchTest, ByStepGoesOnAfterThatStep) {
  CompressionSwitchOptions options = Options();
  options.compress_after_step = 7;
  CompressionSwitch compression = MakeSwitch(options);

  EXPECT_EQ(TurnsAfter(&compression, 0, 30,
                       [](int64_t) { return CompressionEvidence(); }),
            7);
  EXPECT_TRUE(compression.is_on());
  EXPECT_EQ(TurnsAfter(&compression, 7, 100,
                       [](int64_t) { return CompressionEvidence(); }),
            -1);
}

TEST(CompressionSwitchTest, AConstantVarianceHasSettledAfterTwoWindows) {
  CompressionSwitch compression = MakeSwitch(Options());

  EXPECT_EQ(
      TurnsAfter(&compression, 0, 100, [](int64_t) { return OfVariance(3.0); }),
      50);
  EXPECT_TRUE(compression.is_on());
}

TEST(CompressionSwitchTest, AVarianceThatChangesHasNot) {
  CompressionSwitch rising = MakeSwitch(Options());
  CompressionSwitch falling = MakeSwitch(Options());
  CompressionSwitch turning = MakeSwitch(Options());
  CompressionSwitch zero = MakeSwitch(Options());

  EXPECT_EQ(TurnsAfter(&rising, 0, 1000,
                       [](int64_t t) { return OfVariance(std::pow(1.01, t)); }),
            -1);
  EXPECT_EQ(TurnsAfter(&falling, 0, 1000,
                       [](int64_t t) { return OfVariance(std::pow(0.99, t)); }),
            -1);
  // Rises up to step 200, then falls: nearly constant for one window.
  EXPECT_EQ(
      TurnsAfter(&turning, 0, 1000,
                 [](int64_t t) {
                   return OfVariance(std::pow(0.99, std::abs(double(t - 200))));
                 }),
      -1);
  EXPECT_EQ(TurnsAfter(&zero, 0, 1000, [](int64_t) { return OfVariance(0.0); }),
            -1);
}

TEST(CompressionSwitchTest, LambWaitsForItsCoefficientsToo) {
  CompressionSwitch compression = MakeSwitch(Options());
  const auto evidence = [](int64_t step) {
    CompressionEvidence sum = OfVariance(1.0);
    // Two stages of 3 and 1 tensors; the spread falls below 10 % at step 200.
    CompressionEvidence other = OfVariance(2.0);
    sum.num_coefficients = 3;
    sum.coefficient_spread_sum = step < 200 ? 0.39 : 0.3;
    other.num_coefficients = 1;
    other.coefficient_spread_sum = 0.05;
    sum += other;
    return sum;
  };

  EXPECT_EQ(TurnsAfter(&compression, 0, 1000, evidence), 230);
}

TEST(CompressionSwitchTest, TheSentenceHoldsTheEvidence) {
  CompressionSwitchOptions options = Options();
  options.num_checks = 1;
  CompressionSwitch compression = MakeSwitch(options);
  CompressionEvidence evidence = OfVariance(100);
  evidence.num_coefficients = 4;
  evidence.coefficient_spread_sum = 0.1;
  compression.Update(9, evidence);
  compression.Update(19, evidence);
  evidence.variance_sum = 102;

  EXPECT_EQ(compression.Update(29, evidence),
            "compression goes on after step 30: the variance changed by 2% in "
            "20 steps (limit 5%), the coefficients of 4 tensors by 2.5% (limit "
            "10%)");
}

TEST(CompressionSwitchTest, FactorsAtTheirLimitsTurnItOffAndItStartsAfresh) {
  CompressionSwitch compression = MakeSwitch(Options());
  const auto evidence = [](int64_t step) {
    CompressionEvidence sum = OfVariance(1.0);
    sum.num_factors = 4;
    sum.num_factors_at_limit = step < 100 ? 2 : 3;  // limit: more than half
    return sum;
  };
  ASSERT_EQ(TurnsAfter(&compression, 0, 100, evidence), 50);

  EXPECT_EQ(TurnsAfter(&compression, 50, 1000, evidence), 130);
  EXPECT_FALSE(compression.is_on());
  // Again a window to compare with, and three checks.
  EXPECT_EQ(TurnsAfter(&compression, 130, 1000, evidence), 180);
}

/// As TurnsAfter, of a variance that stays 1, with the squared norm of each
/// step.
int64_t TurnsByNormAfter(CompressionSwitch* compression, int64_t begin,
                         int64_t end,
                         const std::function<double(int64_t)>& squared_norm) {
  for (int64_t step = begin; step < end; ++step) {
    compression->Observe(squared_norm(step));
    if (!compression->Update(step, OfVariance(1)).empty()) return step + 1;
  }
  return -1;
}

TEST(CompressionSwitchTest, NormsFarFromTheFrozenVarianceTurnItOff) {
  CompressionSwitch grown = MakeSwitch(Options());
  CompressionSwitch shrunk = MakeSwitch(Options());
  const auto from_100 = [](double value) {
    return [value](int64_t step) { return step < 100 ? 1.0 : value; };
  };
  ASSERT_EQ(TurnsByNormAfter(&grown, 0, 100, from_100(9)), 50);
  ASSERT_EQ(TurnsByNormAfter(&shrunk, 0, 100, from_100(0.01)), 50);

  // 1 + 8 (1 - 0.95^n) is above 4 from n = 10 on, 0.01 + 0.99 0.95^n below 1/16
  // from n = 58 on; and three checks.
  EXPECT_EQ(TurnsByNormAfter(&grown, 100, 1000, from_100(9)), 130);
  EXPECT_EQ(TurnsByNormAfter(&shrunk, 100, 1000, from_100(0.01)), 180);
  EXPECT_FALSE(grown.is_on());
  // Again a window to compare with, and three checks.
  EXPECT_EQ(TurnsByNormAfter(&grown, 130, 1000, from_100(9)), 180);
}

TEST(CompressionSwitchTest, NormsWithinTheLimitsDoNot) {
  for (const double value : {0.07, 0.5, 3.9}) {
    CompressionSwitch compression = MakeSwitch(Options());
    ASSERT_EQ(
        TurnsByNormAfter(&compression, 0, 100, [&](int64_t) { return value; }),
        50);

    EXPECT_EQ(TurnsByNormAfter(&compression, 50, 5000,
                               [&](int64_t) { return value; }),
              -1)
        << value;
  }
}

TEST(CompressionSwitchTest, LimitsThatAreCrossedToAndFroDoNot) {
  CompressionSwitch compression = MakeSwitch(Options());
  // Ten steps of 10 and ten of 0: s is 6.3 after the former and 3.7 after the
  // latter.
  const auto swinging = [](int64_t step) {
    return step % 20 < 10 ? 10.0 : 0.0;
  };
  ASSERT_EQ(TurnsByNormAfter(&compression, 0, 100, [](int64_t) { return 1.0; }),
            50);

  EXPECT_EQ(TurnsByNormAfter(&compression, 50, 5000, swinging), -1);
}

TEST(CompressionSwitchTest, WhereThereAreFactorsNormsDoNotCount) {
  CompressionSwitch compression = MakeSwitch(Options());
  CompressionEvidence evidence = OfVariance(1.0);
  evidence.num_factors = 1;
  const auto turns = [&](int64_t begin, int64_t end) {
    for (int64_t step = begin; step < end; ++step) {
      compression.Observe(1000);
      if (!compression.Update(step, evidence).empty()) return step + 1;
    }
    return int64_t{-1};
  };
  ASSERT_EQ(turns(0, 100), 50);

  EXPECT_EQ(turns(50, 1000), -1);
}

TEST(CompressionSwitchTest, TheSentenceHoldsTheNorms) {
  CompressionSwitchOptions options = Options();
  options.num_checks = 1;
  CompressionSwitch compression = MakeSwitch(options);
  ASSERT_EQ(TurnsByNormAfter(&compression, 0, 30, [](int64_t) { return 2.0; }),
            30);
  for (int step = 30; step < 39; ++step) compression.Observe(2.0);
  compression.Observe(200.0);

  EXPECT_EQ(compression.Update(39, OfVariance(2)),
            "compression goes off after step 40: the variance would be 5.65 "
            "times the frozen one (limits 0.0625 and 4)");
}

TEST(CompressionSwitchTest, ImportedStateDecidesAsIfNeverInterrupted) {
  const auto update = [](bool is_lamb, int64_t step, CompressionSwitch* to) {
    CompressionEvidence sum = OfVariance(1.0 + std::exp(-0.05 * double(step)));
    sum.num_factors = is_lamb ? 1 : 0;
    sum.num_factors_at_limit = sum.num_factors;
    to->Observe(step < 100 ? 1.0 : 7.0);
    return to->Update(step, sum);
  };
  for (int64_t at = 0; at < 280; at += 7) {
    const bool is_lamb = at < 140;
    CompressionSwitch whole = MakeSwitch(Options());
    for (int64_t step = 0; step < at % 140; ++step) {
      update(is_lamb, step, &whole);
    }
    CompressionSwitch resumed = MakeSwitch(Options());
    ASSERT_TRUE(resumed.ImportState(whole.ExportState()).ok());
    int num_turns = 0;
    for (int64_t step = at % 140; step < 300; ++step) {
      const std::string turn = update(is_lamb, step, &whole);
      ASSERT_EQ(turn, update(is_lamb, step, &resumed))
          << "resumed at " << at << ", step " << step;
      ASSERT_EQ(whole.ExportState(), resumed.ExportState());
      num_turns += turn.empty() ? 0 : 1;
    }
    EXPECT_GE(num_turns, 1);
  }
}

TEST(CompressionSwitchTest,
     AStateOfBeforeThereWereNormsGoesOnFromItsNextCheck) {
  CompressionSwitch compression = MakeSwitch(Options());
  ASSERT_TRUE(compression.ImportState({1, 2}).ok());
  EXPECT_TRUE(compression.is_on());

  // The first check, at step 110, finds nothing outdated; three more do.
  EXPECT_EQ(
      TurnsByNormAfter(&compression, 103, 1000, [](int64_t) { return 100.0; }),
      140);
}

TEST(CompressionSwitchTest, AnotherStateIsRefused) {
  CompressionSwitch compression = MakeSwitch(Options());
  const double nan = std::numeric_limits<double>::quiet_NaN();

  for (const std::vector<double>& state :
       std::vector<std::vector<double>>{{},
                                        {1},
                                        {2, 0},
                                        {0, 3},
                                        {0, -1},
                                        {nan, 0},
                                        {0, 0, 1, 2, 3, 4},
                                        {1, 0, 1, 2},
                                        {1, 0, -1},
                                        {1, 0, nan}}) {
    EXPECT_EQ(compression.ImportState(state).code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(CompressionSwitchTest, BadOptionsAreNamed) {
  CompressionSwitchOptions options;
  options.beta2 = 1;
  EXPECT_THAT(CompressionSwitch::Create(options).status().ToString(),
              HasSubstr("beta2: expected 0 <= beta2 < 1, got 1"));
  options = {};
  options.num_checks = 0;
  EXPECT_THAT(CompressionSwitch::Create(options).status().ToString(),
              AllOf(HasSubstr("num_checks"), HasSubstr("got 0")));
}

TEST(CompressionSwitchTest, TheWindowIsTheMemoryOfTheVarianceUpToAHundred) {
  for (const auto& [beta2, half] : std::vector<std::pair<double, int64_t>>{
           {0.0, 1}, {0.9, 5}, {0.99, 50}, {0.999, 50}}) {
    CompressionSwitchOptions options;
    options.beta2 = beta2;
    const CompressionSwitch compression = MakeSwitch(options);
    EXPECT_TRUE(compression.WantsEvidence(half - 1)) << beta2;
    EXPECT_EQ(compression.WantsEvidence(half), half == 1) << beta2;
  }
}

/// What ranks of the engine know of a step's gradients: the squared norm of
/// their mean where that traveled, else an estimate.
class KnownNorm {
 public:
  double SquaredNorm(const std::vector<std::vector<float>>& gradients,
                     SyncFormat format) {
    const double num_ranks = static_cast<double>(gradients.size());
    std::vector<double> mean(gradients[0].size());
    double own_squares = 0;
    for (const std::vector<float>& gradient : gradients) {
      for (size_t i = 0; i < mean.size(); ++i) {
        mean[i] += double{gradient[i]} / num_ranks;
        own_squares += double{gradient[i]} * gradient[i] / num_ranks;
      }
    }
    const double squares =
        std::inner_product(mean.begin(), mean.end(), mean.begin(), 0.0);
    return std::pow(
        norm_.Update(format == SyncFormat::kPlain, squares, own_squares), 2);
  }

 private:
  GradientNorm norm_;
};

/// Replicas that decide by themselves, each with its own optimizer's evidence,
/// on gradients that do not depend on the weights, as the rate is tiny.
class DecidingReplicas {
 public:
  DecidingReplicas(const std::string& kind, uint64_t seed)
      : layout_(LayoutOf({64, 200, 33, 128})),
        problem_(layout_, seed),
        replicas_(OptionsOf(kind), layout_, kRanks, problem_.start()),
        switches_(kRanks, MakeSwitch(Options())),
        turns_(kRanks) {}

  /// Steps [begin, end), gradients multiplied by `amplitude`.
  void Run(int64_t begin, int64_t end, float amplitude) {
    for (int64_t step = begin; step < end; ++step) {
      auto gradients = GradientsOf<float>(problem_, step, kRanks, false,
                                          replicas_.weights());
      for (std::vector<float>& gradient : gradients) {
        for (float& value : gradient) value *= amplitude;
      }
      replicas_.Step(step, gradients, 1e-7, 0);
      const double norm =
          known_.SquaredNorm(gradients, replicas_.last_format());
      for (int rank = 0; rank < kRanks; ++rank) {
        const size_t i = static_cast<size_t>(rank);
        switches_[i].Observe(norm);
        const std::string turn =
            switches_[i].Update(step, replicas_.optimizer(rank).Evidence());
        if (turn.empty()) continue;
        turns_[i].push_back(turn);
        replicas_.optimizer(rank).SetCompressing(switches_[i].is_on());
      }
    }
  }

  SyncFormat last_format() const { return replicas_.last_format(); }
  /// The sentences of each rank's switch.
  const std::vector<std::vector<std::string>>& turns() const { return turns_; }

 private:
  static OptimizerOptions OptionsOf(const std::string& kind) {
    OptimizerOptions options;
    options.kind = kind;
    options.beta2 = Options().beta2;
    options.compress_after_step = kCompressByDecision;
    options.local_step_scaler = 20;
    options.local_step_clipper = 4;
    return options;
  }

  static constexpr int kRanks = 3;
  const ParameterLayout layout_;
  const ToyProblem problem_;
  OneBitReplicas<float> replicas_;
  std::vector<CompressionSwitch> switches_;
  std::vector<std::vector<std::string>> turns_;
  KnownNorm known_;
};

class GoingBackTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoingBackTest, AVarianceThatJumpsIsLearntAnewOnAllRanksTogether) {
  DecidingReplicas replicas(GetParam(), 7);

  replicas.Run(0, 200, 1);
  EXPECT_EQ(replicas.turns()[0].size(), 1u);
  replicas.Run(200, 240, 5);
  EXPECT_EQ(replicas.turns()[0].size(), 2u);
  EXPECT_EQ(replicas.last_format(), SyncFormat::kPlain);
  replicas.Run(240, 1000, 5);

  EXPECT_THAT(
      replicas.turns()[0],
      ElementsAre(HasSubstr("compression goes on after step"),
                  HasSubstr("compression goes off after step 230: the variance "
                            "would be"),
                  HasSubstr("compression goes on after step")));
  EXPECT_THAT(replicas.turns(), Each(replicas.turns()[0]));
}

TEST_P(GoingBackTest, AStationaryStreamNeverDoes) {
  for (const uint64_t seed : {7, 8, 9}) {
    DecidingReplicas replicas(GetParam(), seed);

    replicas.Run(0, 2000, 1);

    EXPECT_THAT(replicas.turns()[0],
                ElementsAre(HasSubstr("compression goes on after step")))
        << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoingBackTest,
                         ::testing::Values("onebit_adam", "zero_one_adam"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

/// 600 steps of 1-bit Adam with a rate that falls to 1 % on a quadratic that
/// converges within them.
class ToyTask {
 public:
  explicit ToyTask(uint64_t seed)
      : layout_(LayoutOf({64, 200, 33, 128})), problem_(layout_, seed) {
    options_.kind = "onebit_adam";
    options_.beta2 = 0.95;
  }

  /// The squared distance to the optimum at the end; compression begins when
  /// `compress_after_step` or, for kCompressByDecision, the switch says so.
  double Run(int64_t compress_after_step, int64_t* decided_after = nullptr) {
    options_.compress_after_step = compress_after_step;
    OneBitReplicas<float> replicas(options_, layout_, kRanks, problem_.start());
    CompressionSwitchOptions options;
    options.beta2 = options_.beta2;
    CompressionSwitch compression = MakeSwitch(options);
    KnownNorm known;
    for (int64_t step = 0; step < kSteps; ++step) {
      const double rate = LearningRate(
          {0.03, 0.0003, 0, LearningRateDecay::kLinear}, step, kSteps);
      const auto gradients =
          GradientsOf<float>(problem_, step, kRanks, false, replicas.weights());
      replicas.Step(step, gradients, rate, 0);
      if (decided_after == nullptr) continue;
      compression.Observe(known.SquaredNorm(gradients, replicas.last_format()));
      if (!compression.WantsEvidence(step)) continue;
      const std::string why =
          compression.Update(step, replicas.optimizer(0).Evidence());
      if (why.empty()) continue;
      *decided_after = step + 1;
      for (int rank = 0; rank < kRanks; ++rank) {
        replicas.optimizer(rank).SetCompressing(compression.is_on());
      }
    }
    double distance = 0;
    for (int64_t i = 0; i < layout_.num_elements; ++i) {
      distance += std::pow(
          replicas.weights()[0][static_cast<size_t>(i)] - problem_.target(i),
          2);
    }
    return distance;
  }

  static constexpr int64_t kSteps = 600;

 private:
  static constexpr int kRanks = 4;
  const ParameterLayout layout_;
  const ToyProblem problem_;
  OptimizerOptions options_;
};

// Tuned by hand over three seeds: the earliest switch on a grid of 20 steps
// from which on, up to step 300, runs end at most 1.3 times as far from the
// optimum as uncompressed ones, in the geometric mean. (Compression itself
// costs 1.2 here, whenever it begins.)
TEST(CompressionSwitchTest, AutoIsWithinAFifthOfTheSwitchTunedByHand) {
  std::vector<ToyTask> tasks = {ToyTask(7), ToyTask(8), ToyTask(9)};
  std::vector<double> uncompressed;
  for (ToyTask& task : tasks) {
    uncompressed.push_back(task.Run(ToyTask::kSteps));
  }
  const auto mean_ratio = [&](int64_t compress_after_step) {
    double sum = 0;
    for (size_t i = 0; i < tasks.size(); ++i) {
      sum += std::log(tasks[i].Run(compress_after_step) / uncompressed[i]);
    }
    return std::exp(sum / static_cast<double>(tasks.size()));
  };
  int64_t best = 300;
  ASSERT_LT(mean_ratio(best), 1.3);
  while (best > 20 && mean_ratio(best - 20) < 1.3) best -= 20;

  for (size_t i = 0; i < tasks.size(); ++i) {
    int64_t decided = 0;
    const double distance = tasks[i].Run(kCompressByDecision, &decided);

    EXPECT_NEAR(double(decided), double(best), 0.2 * double(best)) << i;
    EXPECT_LT(distance, 1.5 * uncompressed[i]) << i;
    RecordProperty(absl::StrCat("decided_", i), static_cast<int>(decided));
  }
  RecordProperty("best", static_cast<int>(best));
}

}  // namespace
}  // namespace deltapipe
