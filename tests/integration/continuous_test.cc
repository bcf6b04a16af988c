// Schedule 2bw in the engine as a whole: steps without a flush between them,
// whose gradients are of weights one update old.
#include <gmock/gmock.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/delay_stability.h"
#include "base/temporary_folder.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

using Weights = std::vector<float>;

std::vector<std::string> Overrides(const std::vector<std::string>& more) {
  std::vector<std::string> overrides = {"parallel.schedule=2bw"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

Job MakeJob(int stages, int replicas, const std::vector<std::string>& more) {
  return Job(stages, replicas, Overrides(more));
}

/// What each rank's weights were after each step.
class WeightLog {
 public:
  void Attach(Job* job) {
    job->after_step = [this](int rank, int64_t step, Training* training) {
      MutexLock lock(&mutex_);
      Weights& weights = after_[{rank, step}];
      weights.assign(training->weights().begin(), training->weights().end());
    };
  }
  Weights After(int rank, int64_t step) {
    MutexLock lock(&mutex_);
    return after_.at({rank, step});
  }

 private:
  Mutex mutex_;
  std::map<std::pair<int, int64_t>, Weights> after_;
};

TEST(ContinuousTest, EveryUpdateIsOfTheWeightsBeforeTheLastOne) {
  const std::vector<std::string> plain = {
      "data.validation=0", "train.optimizer.momentum=0", "train.clip_norm=0"};
  std::map<int64_t, std::vector<Weights>> seen;  // by step
  WeightLog log;
  Job delayed = MakeJob(1, 1, plain);
  delayed.before_forward = [&](int, ElementwiseStage* stage, int64_t step,
                               int) {
    seen[step].emplace_back(stage->weights().begin(), stage->weights().end());
    return absl::OkStatus();
  };
  log.Attach(&delayed);
  ExpectSuccess(delayed.Run());

  // The same gradients without delay: each step begins at what the other saw.
  std::map<int64_t, Weights> moved;
  std::vector<std::string> flushed_overrides = plain;
  flushed_overrides.push_back(absl::StrCat("train.optimizer.learning_rate=",
                                           0.05 * DelayRateFactor(1)));
  Job flushed(1, 1, flushed_overrides);
  flushed.before_forward = [&](int, ElementwiseStage* stage, int64_t step,
                               int mb) {
    if (mb == 0) {
      std::copy(seen[step][0].begin(), seen[step][0].end(),
                stage->weights().begin());
    }
    return absl::OkStatus();
  };
  flushed.after_step = [&](int, int64_t step, Training* training) {
    moved[step].assign(training->weights().begin(), training->weights().end());
  };
  ExpectSuccess(flushed.Run());

  for (int64_t step = 0; step < 20; ++step) {
    ASSERT_EQ(seen[step].size(), 8u);
    for (const Weights& weights : seen[step]) {
      EXPECT_EQ(weights, step < 2 ? seen[0][0] : log.After(0, step - 2))
          << "step " << step;
    }
    const Weights before = step == 0 ? seen[0][0] : log.After(0, step - 1);
    const Weights after = log.After(0, step);
    for (size_t i = 0; i < after.size(); ++i) {
      EXPECT_NEAR(after[i] - before[i], moved[step][i] - seen[step][0][i], 1e-6)
          << "step " << step << ", weight " << i;
    }
  }
}

class SplitTest : public ::testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(SplitTest, EqualsWhole) {
  const auto [stages, replicas] = GetParam();
  for (const char* kind : {"sgd", "adamw", "lamb"}) {
    const std::vector<std::string> overrides = {
        absl::StrCat("train.optimizer.kind=", kind), "train.clip_norm=0.2"};

    const RunResult whole = MakeJob(1, 1, overrides).Run();
    const RunResult split = MakeJob(stages, replicas, overrides).Run();

    ExpectLossesOfTheWhole(split, whole, kind);
    for (int64_t step = 0; step < 20; ++step) {
      for (const auto& [rank, reports] : split.reports) {
        const v1::StepReport& report = reports[static_cast<size_t>(step)];
        EXPECT_EQ(report.step(), step);
        const int64_t microbatches = 8 / replicas;
        EXPECT_THAT(report.microbatches_by_delay(),
                    ElementsAreArray(
                        step == 0 ? std::vector<int64_t>{microbatches}
                                  : std::vector<int64_t>{0, microbatches}));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Partitions, SplitTest,
                         ::testing::Values(std::make_tuple(2, 1),
                                           std::make_tuple(4, 1),
                                           std::make_tuple(1, 2),
                                           std::make_tuple(2, 2),
                                           std::make_tuple(4, 2)));

const std::vector<std::string>& CompressedOverrides() {
  static const auto* const overrides = new std::vector<std::string>{
      "train.steps=60",
      "train.optimizer.kind=onebit_lamb",
      "train.optimizer.learning_rate=0.02",
      "train.optimizer.compress_after_step=10",
      "compression.activations=delta(int(4),first=int(8))",
      "compression.activation_gradients=ef(int(4))",
      "compression.gradients=auto"};
  return *overrides;
}

TEST(ContinuousTest, WhereSpansEndChangesNothing) {
  std::vector<std::string> overrides = CompressedOverrides();
  const RunResult flowing = MakeJob(2, 2, overrides).Run();
  overrides.insert(overrides.end(),
                   {"train.validate_every=7", "checkpoint.every=5"});
  Job interrupted = MakeJob(2, 2, overrides);
  interrupted.takes_checkpoints = true;
  const auto folder = TemporaryFolder::Create("checkpoints");
  ASSERT_TRUE(folder.ok()) << folder.status();
  interrupted.assignment().set_checkpoint_folder(folder->path());
  const RunResult often = interrupted.Run();

  ExpectSuccess(flowing);
  ExpectSuccess(often);
  EXPECT_LT(flowing.losses.back(), 0.7 * flowing.losses.front());
  EXPECT_EQ(often.losses, flowing.losses);
  for (const auto& [rank, weights] : flowing.weights) {
    EXPECT_EQ(often.weights.at(rank), weights) << "rank " << rank;
  }
  EXPECT_EQ(flowing.weights.at(0), flowing.weights.at(1));
  EXPECT_EQ(flowing.weights.at(2), flowing.weights.at(3));
}

TEST(ContinuousTest, DeeperWarmUpsComputeTheSame) {
  const RunResult plain = MakeJob(4, 1, CompressedOverrides()).Run();
  // Links that are slow in the plan only.
  std::vector<std::string> overrides = CompressedOverrides();
  overrides.push_back("network.expected.latency=5ms");
  Job deep = MakeJob(4, 1, overrides);
  EXPECT_THAT(deep.assignment().plan().schedule(), HasSubstr("2bw+"));
  const RunResult result = deep.Run();

  ExpectSuccess(plain);
  ExpectSuccess(result);
  EXPECT_EQ(result.losses, plain.losses);
}

TEST(ContinuousTest, ANonFiniteGradientSkipsTheStepEverywhere) {
  std::vector<std::string> overrides = CompressedOverrides();
  overrides.push_back("train.steps=30");
  Job job = MakeJob(2, 2, overrides);
  job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                          int mb) {
    if (rank == 3 && step == 20 && mb == 1) {
      stage->gradients()[5] = std::numeric_limits<float>::quiet_NaN();
    }
    return absl::OkStatus();
  };
  WeightLog log;
  log.Attach(&job);

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      EXPECT_EQ(report.skipped_steps(), report.step() == 20 ? 1 : 0)
          << "rank " << rank << ", step " << report.step();
    }
    EXPECT_EQ(log.After(rank, 20), log.After(rank, 19));
    EXPECT_NE(log.After(rank, 21), log.After(rank, 20));
  }
  EXPECT_TRUE(std::isfinite(result.losses.back()));
}

TEST(ContinuousTest, AFailingWorkerEndsAllOthersWithTheCause) {
  for (const int failing : {0, 1, 2, 3}) {
    Job job = MakeJob(2, 2, {});
    job.before_forward = [&](int rank, ElementwiseStage*, int64_t step,
                             int mb) {
      return rank == failing && step == 5 && mb == 1
                 ? absl::ResourceExhaustedError("device memory is exhausted")
                 : absl::OkStatus();
    };

    const RunResult result = job.Run();

    EXPECT_THAT(result.done.at(failing).error_message(),
                HasSubstr("FORWARD of micro-batch 1 of step 6"));
    EXPECT_FALSE(result.done.at(failing).is_consequence());
    for (int rank = 0; rank < 4; ++rank) {
      if (rank == failing) continue;
      EXPECT_NE(result.done.at(rank).error_code(), 0) << rank;
      EXPECT_TRUE(result.done.at(rank).is_consequence())
          << result.done.at(rank).error_message();
    }
  }
}

TEST(ContinuousTest, AStopAskedOfOneWorkerEndsAllAtTheSameStep) {
  for (const int asked : {0, 1, 2, 3}) {
    Job job = MakeJob(2, 2, {"train.steps=1000"});
    job.after_step = [&](int rank, int64_t step, Training* training) {
      if (rank == asked && step == 4) training->RequestStop();
    };

    const RunResult result = job.Run();

    ExpectSuccess(result);
    for (const auto& [rank, done] : result.done) {
      EXPECT_TRUE(done.stopped_early());
      EXPECT_EQ(done.steps(), result.done.at(0).steps()) << rank;
    }
    EXPECT_GE(result.done.at(0).steps(), 6);
    EXPECT_LE(result.done.at(0).steps(), 10);
  }
}

TEST(ContinuousTest, KnobsChangeBetweenTheSameTwoStepsEverywhere) {
  Job job = MakeJob(2, 2, {"train.steps=40", "compression.activations=int(8)"});
  v1::Tuning first;
  first.set_revision(1);
  first.set_gradients("none");
  first.set_saved_activations("none");
  first.set_straggler_policy("none");
  v1::BoundaryTuning* boundary = first.add_boundaries();
  boundary->set_activations("int(8)");
  boundary->set_activation_gradients("none");
  *job.assignment().mutable_tuning() = first;
  job.after_step = [&](int, int64_t step, Training* training) {
    if (step != 3) return;
    v1::Tuning next = first;
    next.set_revision(2);
    next.mutable_boundaries(0)->set_activations("int(4)");
    EXPECT_TRUE(training->PrepareTuning(next).ok());
    training->DecideTuning(2, /*commit=*/true);
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (int64_t step = 0; step < 40; ++step) {
    const uint32_t revision =
        result.reports.at(0)[static_cast<size_t>(step)].tuning_revision();
    // Decided in step 4, agreed on in the next, heard two steps later.
    if (step <= 4) {
      EXPECT_EQ(revision, 1u);
    } else if (step >= 12) {
      EXPECT_EQ(revision, 2u);
    }
    for (const auto& [rank, reports] : result.reports) {
      EXPECT_EQ(reports[static_cast<size_t>(step)].tuning_revision(), revision)
          << "rank " << rank << ", step " << step;
    }
  }
}

}  // namespace
}  // namespace deltapipe
