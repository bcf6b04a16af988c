// train.optimizer.shard_state in the engine as a whole: what is learned does
// not depend on who keeps which part of the optimizer's state.
#include <gmock/gmock.h>
#include <stdlib.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/temporary_folder.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> With(std::vector<std::string> overrides,
                              const std::string& more) {
  overrides.push_back(more);
  return overrides;
}

std::vector<std::string> Sharded(const std::vector<std::string>& overrides) {
  return With(overrides, "train.optimizer.shard_state=on");
}

using Case = std::tuple<std::string, int, int>;  // kind, stages, replicas

class ShardedStateJobTest : public ::testing::TestWithParam<Case> {
 protected:
  std::vector<std::string> Overrides() const {
    const auto& [kind, stages, replicas] = GetParam();
    return {absl::StrCat("train.optimizer.kind=", kind),
            // A multiple of 3 replicas, too.
            "train.batch=48", "train.microbatch=4"};
  }
  Job MakeJob(const std::vector<std::string>& overrides) const {
    return Job(std::get<1>(GetParam()), std::get<2>(GetParam()), overrides);
  }
};

// Shards are summed in the order of the whole ring, and each element is updated
// by itself: not a bit differs, for any number of replicas.
TEST_P(ShardedStateJobTest, EqualsReplicatedStateToTheBit) {
  const auto overrides = With(Overrides(), "train.clip_norm=0");

  const RunResult whole = MakeJob(overrides).Run();
  const RunResult sharded = MakeJob(Sharded(overrides)).Run();

  ExpectSuccess(whole);
  ExpectSuccess(sharded);
  EXPECT_LT(whole.losses.back(), whole.losses.front());
  EXPECT_EQ(sharded.losses, whole.losses);
  EXPECT_EQ(sharded.weights, whole.weights);
}

// The norm is summed by shards, in double: its last bits, and with them the
// clip factor's, may differ.
TEST_P(ShardedStateJobTest, ClipsByTheSameNorm) {
  const auto overrides = With(Overrides(), "train.clip_norm=0.2");

  const RunResult whole = MakeJob(overrides).Run();
  const RunResult sharded = MakeJob(Sharded(overrides)).Run();

  ExpectSuccess(whole);
  ExpectSuccess(sharded);
  double largest = 0;
  for (size_t step = 0; step < 20; ++step) {
    EXPECT_NEAR(sharded.losses[step], whole.losses[step],
                1e-6 * whole.losses[step]);
    const double norm = whole.reports.at(0)[step].gradient_norm();
    largest = std::max(largest, norm);
    for (const auto& [rank, reports] : sharded.reports) {
      EXPECT_NEAR(reports[step].gradient_norm(), norm, 1e-6 * norm)
          << "rank " << rank << ", step " << step;
      EXPECT_EQ(reports[step].gradient_norm(),
                sharded.reports.at(0)[step].gradient_norm());
    }
  }
  EXPECT_GT(largest, 0.2);  // gradients were clipped
}

// bf16 rounds gradients on their way to the owner, never weights.
TEST_P(ShardedStateJobTest, LearnsFromRoundedGradients) {
  const auto overrides = With(Overrides(), "compression.gradients=cast(bf16)");

  const RunResult whole = MakeJob(overrides).Run();
  const RunResult sharded = MakeJob(Sharded(overrides)).Run();

  ExpectSuccess(whole);
  ExpectSuccess(sharded);
  const int replicas = std::get<2>(GetParam());
  for (const auto& [rank, weights] : sharded.weights) {
    EXPECT_EQ(weights, sharded.weights.at(rank / replicas * replicas));
  }
  EXPECT_NEAR(sharded.losses.back(), whole.losses.back(),
              1e-2 * whole.losses.back());
}

INSTANTIATE_TEST_SUITE_P(
    KindStagesReplicas, ShardedStateJobTest,
    ::testing::Values(Case{"sgd", 1, 2}, Case{"adam", 1, 3},
                      Case{"adamw", 1, 4}, Case{"adamw", 2, 2},
                      Case{"adamw", 2, 3}, Case{"adamw", 4, 2},
                      Case{"adamw", 2, 1}),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param), std::get<1>(info.param), "x",
                          std::get<2>(info.param));
    });

// A tensor that two shares cut has its squares added up in another order.
TEST(ShardedLambJobTest, LearnsWhatReplicatedStateLearns) {
  for (const auto& [stages, replicas] :
       {std::pair<int, int>{1, 2}, {1, 3}, {2, 2}, {1, 8}, {2, 1}}) {
    SCOPED_TRACE(absl::StrCat(stages, " x ", replicas));
    const std::vector<std::string> overrides = {
        "train.optimizer.kind=lamb", "train.batch=48", "train.microbatch=2",
        "train.clip_norm=0.2"};

    const RunResult whole = Job(stages, replicas, overrides).Run();
    const RunResult sharded = Job(stages, replicas, Sharded(overrides)).Run();

    ExpectSuccess(whole);
    ExpectSuccess(sharded);
    EXPECT_LT(whole.losses.back(), whole.losses.front());
    for (size_t step = 0; step < 20; ++step) {
      EXPECT_NEAR(sharded.losses[step], whole.losses[step],
                  1e-6 * whole.losses[step])
          << "step " << step;
    }
    for (const auto& [rank, weights] : sharded.weights) {
      EXPECT_EQ(weights, sharded.weights.at(rank / replicas * replicas));
    }
  }
}

TEST(ShardedStateTest, GroupsHoldWhereSegmentsAreCut) {
  const std::vector<std::string> overrides = {
      "train.optimizer.kind=adamw", "train.clip_norm=0",
      "train.optimizer.groups=[{match: '*.gain', weight_decay: 0.5}, "
      "{match: 'layers.1.*', learning_rate_scale: 0}]"};

  const RunResult whole = Job(1, 8, overrides).Run();
  const RunResult sharded = Job(1, 8, Sharded(overrides)).Run();

  ExpectSuccess(sharded);
  EXPECT_EQ(sharded.losses, whole.losses);
  EXPECT_EQ(sharded.weights, whole.weights);
}

TEST(ShardedStateTest, SendsNoMoreThanReplicatedState) {
  // Wide: acknowledgements, which depend on time, are far below 1 %.
  const std::vector<std::string> overrides = {"train.optimizer.kind=adamw",
                                              "model.width=2048"};

  const RunResult whole = Job(1, 4, overrides).Run();
  const RunResult sharded = Job(1, 4, Sharded(overrides)).Run();

  ExpectSuccess(sharded);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(sharded.done.at(rank).bytes().gradient_raw(),
              whole.done.at(rank).bytes().gradient_raw());
    EXPECT_LE(
        static_cast<double>(sharded.done.at(rank).bytes().gradient_wire()),
        1.01 *
            static_cast<double>(whole.done.at(rank).bytes().gradient_wire()));
  }
}

TEST(ShardedStateTest, ANonFiniteGradientSkipsTheStepEverywhere) {
  Job job(2, 2, Sharded({"train.optimizer.kind=adamw"}));
  // An element that the other replica owns, and only that one sees.
  job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                          int mb) {
    if (rank == 3 && step == 10 && mb == 1) {
      stage->gradients().back() = std::numeric_limits<float>::infinity();
    }
    if (rank == 1 && step == 12 && mb == 1) {
      stage->gradients().front() = std::numeric_limits<float>::quiet_NaN();
    }
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      EXPECT_EQ(report.skipped_steps(),
                report.step() == 10 || report.step() == 12 ? 1 : 0)
          << "rank " << rank << ", step " << report.step();
    }
  }
  EXPECT_TRUE(std::isfinite(result.losses.back()));
  EXPECT_EQ(result.weights.at(0), result.weights.at(1));
  EXPECT_EQ(result.weights.at(2), result.weights.at(3));
}

TEST(ShardedStateTest, AKindThatCannotIsRefusedByTheWorkerToo) {
  Job job(1, 2, {"train.optimizer.kind=lamb"});
  v1::OptimizerSpec* const optimizer =
      job.assignment().mutable_spec()->mutable_train()->mutable_optimizer();
  optimizer->set_kind("onebit_lamb");
  optimizer->set_shard_state("on");

  const RunResult result = job.Run();

  EXPECT_THAT(result.done.at(0).error_message(),
              HasSubstr("cannot share out the state of onebit_lamb"));
}

/// Whether the job shares its state out before it breaks, and after.
class ShardedResumeTest
    : public ::testing::TestWithParam<std::tuple<bool, bool>> {};

TEST_P(ShardedResumeTest, CheckpointsHoldTheWholeState) {
  const std::vector<std::string> overrides = {
      "train.optimizer.kind=adamw", "train.clip_norm=0", "train.steps=24",
      "checkpoint.every=5"};
  const auto folder = TemporaryFolder::Create("checkpoints");
  ASSERT_TRUE(folder.ok()) << folder.status();
  const auto make = [&](bool is_sharded, uint64_t generation) {
    auto job = std::make_unique<Job>(
        2, 3,
        With(is_sharded ? Sharded(overrides) : overrides, "train.batch=24"));
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder->path());
    job->assignment().set_generation(generation);
    return job;
  };
  const auto [before, after] = GetParam();
  const RunResult whole = Job(2, 3, With(overrides, "train.batch=24")).Run();

  const auto broken = make(before, 3);
  broken->after_step = [](int, int64_t step, Training* training) {
    if (step == 14) training->Cancel(absl::UnavailableError("broken"));
  };
  broken->Run();
  const auto resumed = make(after, 4);
  resumed->assignment().set_resume(true);
  const RunResult rest = resumed->Run();

  ExpectSuccess(whole);
  ExpectSuccess(rest);
  const int64_t from = rest.ready.at(0).restored_step();
  EXPECT_GE(from, 5);
  for (int64_t step = from; step < 24; ++step) {
    EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
  }
  EXPECT_EQ(rest.weights, whole.weights);
}

INSTANTIATE_TEST_SUITE_P(
    BeforeAndAfter, ShardedResumeTest,
    ::testing::Combine(::testing::Bool(), ::testing::Bool()),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param) ? "Sharded" : "Whole", "To",
                          std::get<1>(info.param) ? "Sharded" : "Whole");
    });

}  // namespace
}  // namespace deltapipe
