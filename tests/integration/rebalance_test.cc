// Steps in which replicas have different numbers of micro-batches: that nothing
// else about the step changes, that it is repeated, and who gets fewer.
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Counts = std::vector<std::vector<int>>;  // by step, then replica

constexpr uint32_t kSeed = 20261;

std::unique_ptr<Job> TheJob(const std::string& policy, int stages, int replicas,
                            std::vector<std::string> overrides) {
  overrides.push_back("stragglers.policy=" + policy);
  auto job = std::make_unique<Job>(stages, replicas, overrides);
  job->assignment().mutable_tuning()->set_straggler_policy(policy);
  return job;
}

/// Tells the job what its first steps had.
void Record(const Counts& counts, Job* job) {
  for (size_t step = 0; step < counts.size(); ++step) {
    v1::ExecutedStep* told = job->assignment().add_executed();
    told->set_step(static_cast<int64_t>(step));
    *told->mutable_planned() = {counts[step].begin(), counts[step].end()};
    *told->mutable_microbatches() = told->planned();
  }
}

/// Of two replicas with 4 micro-batches each, up to 6.
Counts RandomCounts(int num_steps) {
  std::mt19937 random(kSeed);
  Counts counts;
  for (int step = 0; step < num_steps; ++step) {
    const int first = 2 + static_cast<int>(random() % 5);
    counts.push_back({first, 8 - first});
  }
  return counts;
}

const v1::StepReport& ReportOf(const RunResult& result, int rank,
                               int64_t step) {
  return result.reports.at(rank)[static_cast<size_t>(step)];
}

/// Mean over the micro-batches of the step, of two replicas' last stages.
double LossOf(const RunResult& result, int stages, int64_t step) {
  double sum = 0;
  double weight = 0;
  for (const int rank : {2 * stages - 2, 2 * stages - 1}) {
    const v1::StepReport& report = ReportOf(result, rank, step);
    const int count =
        report.microbatches_size() > 0 ? report.microbatches(0) : 4;
    sum += count * report.loss();
    weight += count;
  }
  return sum / weight;
}

class AnyCountsTest : public ::testing::TestWithParam<int> {};

// Whoever does a micro-batch, it weighs the same. What differs is the order of
// the sums.
TEST_P(AnyCountsTest, TheUpdateIsThatOfEvenCounts) {
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  const int stages = GetParam();
  const Counts counts = RandomCounts(20);
  const RunResult even = TheJob("none", stages, 2, {})->Run();
  const auto job = TheJob("rebalance", stages, 2, {});
  Record(counts, job.get());

  const RunResult moved = job->Run();

  ExpectSuccess(even);
  ExpectSuccess(moved);
  for (int64_t step = 0; step < 20; ++step) {
    for (int rank = 0; rank < 2 * stages; ++rank) {
      const v1::StepReport& report = ReportOf(moved, rank, step);
      const int count = counts[static_cast<size_t>(step)][size_t(rank % 2)];
      EXPECT_THAT(report.planned_microbatches(), ElementsAre(count));
      EXPECT_THAT(report.microbatches(), ElementsAre(count));
      EXPECT_EQ(report.tokens(), 8 * 2 * count);
      EXPECT_EQ(report.dropped_samples(), 0);
    }
    const double loss = LossOf(even, stages, step);
    EXPECT_NEAR(LossOf(moved, stages, step), loss, 1e-6 * loss)
        << "step " << step;
  }
  for (const auto& [rank, weights] : even.weights) {
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_NEAR(moved.weights.at(rank)[i], weights[i], 1e-6)
          << "rank " << rank << ", weight " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, AnyCountsTest, ::testing::Values(1, 2, 3, 4));

TEST(RebalanceTest, WhereNobodyIsSlowItIsTheJobWithoutAPolicyToTheBit) {
  const RunResult plain = TheJob("none", 2, 2, {})->Run();

  const RunResult watched = TheJob("rebalance", 2, 2, {})->Run();

  ExpectSuccess(watched);
  EXPECT_EQ(watched.losses, plain.losses);
  EXPECT_EQ(watched.weights, plain.weights);
}

std::vector<std::string> Compressed() {
  return {"train.steps=30",
          "train.optimizer.kind=onebit_lamb",
          "train.optimizer.learning_rate=0.01",
          "train.optimizer.compress_after_step=8",
          "compression.activations=delta(int(4),first=int(8))",
          "compression.activation_gradients=int(8,round=stochastic)",
          "compression.gradients=sign(block=0)",
          "checkpoint.every=5"};
}

class RedoTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Job> Make(const std::string& subfolder,
                            const Counts& recorded) {
    const std::string folder = absl::StrCat(::testing::TempDir(), "/rebalance_",
                                            GetParam(), "_", subfolder);
    auto job = TheJob(GetParam(), 2, 2, Compressed());
    Record(recorded, job.get());
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder);
    return job;
  }
  void SetUp() override {
    for (const char* subfolder : {"whole", "broken"}) {
      std::filesystem::remove_all(absl::StrCat(
          ::testing::TempDir(), "/rebalance_", GetParam(), "_", subfolder));
    }
  }
  /// Runs until worker 1 leaves in step 17.
  void RunBroken(const Counts& recorded) {
    const auto broken = Make("broken", recorded);
    broken->after_step = [](int rank, int64_t step, Training* training) {
      if (rank == 1 && step == 17) {
        training->Cancel(absl::UnavailableError("worker-1 has left"));
      }
    };
    broken->Run();
  }
  RunResult Resume(const Counts& recorded) {
    const auto resumed = Make("broken", recorded);
    resumed->assignment().set_generation(4);
    resumed->assignment().set_resume(true);
    return resumed->Run();
  }
  static void ExpectSame(const RunResult& rest, const RunResult& whole) {
    ExpectSuccess(rest);
    const int64_t from = rest.ready.at(0).restored_step();
    EXPECT_TRUE(from == 10 || from == 15) << from;
    for (int64_t step = from; step < 30; ++step) {
      EXPECT_EQ(rest.Mean(step), whole.Mean(step)) << "step " << step;
    }
    EXPECT_EQ(rest.weights, whole.weights);
  }
};

TEST_P(RedoTest, StepsThatAreDoneAgainHaveTheCountsThatWereRecorded) {
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  const Counts counts = RandomCounts(30);
  const RunResult whole = Make("whole", counts)->Run();
  RunBroken(counts);

  const RunResult rest = Resume(counts);

  ExpectSame(rest, whole);
}

// What was moved by step 9 stays so; nobody else knows of it.
TEST_P(RedoTest, CheckpointsHoldTheCounts) {
  Counts counts(9, {4, 4});
  counts.push_back({6, 2});
  const RunResult whole = Make("whole", counts)->Run();
  RunBroken(counts);

  const RunResult rest = Resume({});

  ExpectSame(rest, whole);
  EXPECT_THAT(rest.reports.at(0).front().planned_microbatches(),
              ElementsAre(6));
  EXPECT_THAT(rest.reports.at(3).back().planned_microbatches(), ElementsAre(2));
}

TEST_P(RedoTest, AJobThatMovesNothingGoesOnWithThePlansCounts) {
  Counts counts(9, {4, 4});
  counts.push_back({6, 2});
  RunBroken(counts);
  auto resumed = TheJob("none", 2, 2, Compressed());
  resumed->takes_checkpoints = true;
  resumed->assignment().set_checkpoint_folder(
      absl::StrCat(::testing::TempDir(), "/rebalance_", GetParam(), "_broken"));
  resumed->assignment().set_generation(4);
  resumed->assignment().set_resume(true);

  const RunResult rest = resumed->Run();

  ExpectSuccess(rest);
  EXPECT_GE(rest.ready.at(0).restored_step(), 10);
  EXPECT_THAT(rest.ready.at(0).notes(),
              ElementsAre(HasSubstr("replicas begin with the plan's "
                                    "micro-batches: ")));
  EXPECT_EQ(rest.reports.at(0).back().tokens(), 8 * 2 * 4);
}

INSTANTIATE_TEST_SUITE_P(Policies, RedoTest,
                         ::testing::Values("rebalance", "auto"),
                         [](const auto& info) { return info.param; });

// Both ends of a boundary are compared after every step; a job in which they
// differ fails.
TEST(RebalanceTest, ASampleThatComesToAnotherReplicaIsSentAsAValue) {
  // Four epochs of 18 steps, 288 samples; slot 7 goes to replica 0 after two.
  // Weights hardly change, or deltas would be too large here and there.
  const auto job =
      TheJob("rebalance", 2, 2,
             {"train.steps=72", "data.validation=0.23",
              "train.optimizer.learning_rate=1e-5",
              "compression.activations=delta(int(4),first=int(8))"});
  Counts counts(36, {4, 4});
  counts.push_back({5, 3});
  Record(counts, job.get());

  const RunResult result = job->Run();

  ExpectSuccess(result);
  int64_t before = 0;
  for (int64_t step = 0; step < 72; ++step) {
    int64_t values = 0;
    for (const int rank : {0, 1}) {
      values += ReportOf(result, rank, step).bytes().value_rows();
    }
    EXPECT_EQ(values - before, step < 18                 ? 16
                               : step >= 36 && step < 54 ? 2
                                                         : 0)
        << "step " << step;
    before = values;
  }
}

/// Makes each micro-batch take so long, on the rank's thread.
void Sleep(std::chrono::microseconds time) {
  Clock* const clock = Clock::Real();
  clock->SleepUntil(clock->Now() + time, nullptr);
}

/// What replica 0 said of changes.
std::vector<v1::Rebalancing> ChangesOf(const RunResult& result) {
  std::vector<v1::Rebalancing> changes;
  for (const v1::StepReport& report : result.reports.at(0)) {
    changes.insert(changes.end(), report.rebalancings().begin(),
                   report.rebalancings().end());
  }
  return changes;
}

int64_t DroppedIn(const RunResult& result) {
  int64_t dropped = 0;
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      dropped += report.dropped_samples();
    }
  }
  return dropped;
}

class SlowReplicaTest : public ::testing::TestWithParam<std::string> {};

TEST_P(SlowReplicaTest, GetsFewerWithin100Steps) {
  // Four replicas of 8 micro-batches.
  const auto job =
      TheJob(GetParam(), 1, 4, {"train.steps=100", "train.batch=64"});
  job->before_forward = [](int rank, ElementwiseStage*, int64_t, int) {
    Sleep(std::chrono::microseconds(rank == 2 ? 4500 : 3000));
    return absl::OkStatus();
  };

  const RunResult result = job->Run();

  ExpectSuccess(result);
  // Where the machine itself jitters, auto may leave out work as well.
  const bool may_drop = GetParam() == "auto";
  EXPECT_LE(DroppedIn(result), may_drop ? 100 * 64 / 10 : 0);
  const std::vector<v1::Rebalancing> changes = ChangesOf(result);
  ASSERT_FALSE(changes.empty());
  EXPECT_THAT(changes[0].before(), ElementsAre(8, 8, 8, 8));
  EXPECT_EQ(changes[0].replica(), 2);
  EXPECT_THAT(changes[0].why(), HasSubstr("replica 2 differs"));
  EXPECT_GE(changes[0].step(), 45) << "after it was measured";
  int total = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const v1::StepReport& last = result.reports.at(rank).back();
    const int count = last.planned_microbatches(0);
    EXPECT_LE(last.microbatches(0), count);
    if (!may_drop) {
      EXPECT_EQ(last.microbatches(0), count);
    }
    EXPECT_EQ(last.stragglers().counts(rank), count);
    EXPECT_EQ(changes.back().after(rank), count);
    EXPECT_TRUE(rank == 2 ? count < 8 : count >= 8) << "rank " << rank;
    total += count;
  }
  EXPECT_EQ(total, 32);
}

INSTANTIATE_TEST_SUITE_P(Policies, SlowReplicaTest,
                         ::testing::Values("rebalance", "auto"),
                         [](const auto& info) { return info.param; });

// Now this replica, now that one: no one is slow for long.
TEST(RebalanceTest, AutoDropsOnJitterAndMovesNothing) {
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  const auto job = TheJob("auto", 1, 4, {"train.steps=100", "train.batch=64"});
  job->before_forward = [](int rank, ElementwiseStage*, int64_t step, int mb) {
    std::seed_seq key{int64_t{kSeed}, int64_t{rank}, step, int64_t{mb}};
    const bool is_late = std::mt19937(key)() % 20 == 0;
    Sleep(std::chrono::microseconds(is_late ? 20000 : 1000));
    return absl::OkStatus();
  };

  const RunResult result = job->Run();

  ExpectSuccess(result);
  EXPECT_GT(DroppedIn(result), 0);
  EXPECT_TRUE(ChangesOf(result).empty());
}

v1::Tuning PolicyTuning(uint32_t revision, const std::string& policy) {
  v1::Tuning tuning;
  tuning.set_revision(revision);
  tuning.set_gradients("none");
  tuning.set_saved_activations("none");
  tuning.set_straggler_policy(policy);
  return tuning;
}

TEST(RebalanceTest, APolicyThatMovesNothingHasThePlansCounts) {
  const auto job = TheJob("auto", 2, 2, {"train.steps=12"});
  job->assignment().mutable_tuning()->set_revision(1);
  Record({{6, 2}}, job.get());
  job->after_step = [](int, int64_t step, Training* training) {
    if (step == 3) {
      EXPECT_TRUE(training->PrepareTuning(PolicyTuning(2, "drop")).ok());
      training->DecideTuning(2, true);
    }
  };

  const RunResult result = job->Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      const int moved = rank % 2 == 0 ? 6 : 2;
      EXPECT_EQ(report.planned_microbatches(0), report.step() < 5 ? moved : 4)
          << "rank " << rank << ", step " << report.step();
    }
  }
  EXPECT_EQ(ChangesOf(result).back().why(), "the policy is drop");
}

TEST(RebalanceTest, APlanWithoutRoomRefusesToMoveWork) {
  std::map<std::string, absl::Status> refused;
  const auto job = TheJob("drop", 1, 2, {"train.steps=2"});
  job->after_step = [&](int rank, int64_t step, Training* training) {
    if (rank != 0 || step != 0) return;
    for (const std::string policy : {"rebalance", "auto"}) {
      refused[policy] = training->PrepareTuning(PolicyTuning(1, policy));
    }
  };

  job->Run();

  for (const std::string policy : {"rebalance", "auto"}) {
    EXPECT_EQ(refused[policy].code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(
        std::string(refused[policy].message()),
        HasSubstr("has room for 4 micro-batches a replica and no more"));
    EXPECT_THAT(std::string(refused[policy].message()),
                HasSubstr("start one with stragglers.policy: " + policy));
  }
}

}  // namespace
}  // namespace deltapipe
