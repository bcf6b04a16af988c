// Gradients that travel while the step's last backward still runs.
#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"
#include "worker/transport/recording/recording_channel.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int kLastMicrobatch = 1;

/// Two micro-batches on each replica.
std::vector<std::string> Large(int replicas,
                               const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides = {
      absl::StrCat("train.batch=", 2 * replicas),
      "train.microbatch=1",
      "model.context=1",
      "train.steps=4",
      "train.verify_every=1",
      "data.validation=0.02"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

constexpr int64_t kBucketElementsPerRank = 2048;

/// Layers of 2 x so many parameters: the vector of a stage with four of them
/// travels in buckets in fp32, of six in bf16 and in one bit.
constexpr int kWidth = 1600;

/// Makes layers of 2 x `width` parameters, more than a spec may ask for.
void Widen(int width, Job* job) {
  job->bucket_elements_per_rank = kBucketElementsPerRank;
  job->adjust = [width](int, v1::Assignment* assignment) {
    assignment->mutable_spec()->mutable_model()->set_width(width);
  };
}

/// Counts how often it is asked to tell.
class CountingStage : public ElementwiseStage {
 public:
  CountingStage(const v1::JobSpec& spec, const v1::StagePlan& plan,
                std::atomic<int>* num_watched)
      : ElementwiseStage(spec, plan.first_layer(), plan.end_layer()),
        num_watched_(num_watched) {}
  bool WatchNextBackward(std::function<void(int64_t)> on_final) override {
    ++*num_watched_;
    return ElementwiseStage::WatchNextBackward(std::move(on_final));
  }

 private:
  std::atomic<int>* const num_watched_;
};

struct EarlyRun {
  RunResult result;
  int num_watched = 0;
};

struct EarlyJob {
  int stages = 1;
  int replicas = 2;
  std::vector<std::string> overrides;
  int width = 0;  // 0: the spec's
  /// What each replica does in each step, where it may leave out work.
  std::vector<std::vector<int>> executed;
};

EarlyRun RunJob(const EarlyJob& with, bool tells_early) {
  std::atomic<int> num_watched{0};
  Job job(with.stages, with.replicas, with.overrides);
  if (with.width > 0) Widen(with.width, &job);
  job.assignment().mutable_tuning()->set_straggler_policy(
      job.assignment().spec().stragglers().policy());
  for (size_t step = 0; step < with.executed.size(); ++step) {
    v1::ExecutedStep* told = job.assignment().add_executed();
    told->set_step(static_cast<int64_t>(step));
    *told->mutable_microbatches() = {with.executed[step].begin(),
                                     with.executed[step].end()};
  }
  job.make_stage =
      [&](const v1::JobSpec& spec,
          const v1::StagePlan& plan) -> absl::StatusOr<std::unique_ptr<Stage>> {
    auto stage = std::make_unique<CountingStage>(spec, plan, &num_watched);
    stage->tells_early = tells_early;
    return {std::move(stage)};
  };
  EarlyRun run;
  run.result = job.Run();
  run.num_watched = num_watched;
  return run;
}

struct Case {
  int stages;
  int replicas;
  std::vector<std::string> overrides;
  int width = kWidth;
};

std::vector<std::string> InOneBit(const std::string& kind) {
  return {"train.optimizer.kind=" + kind, "train.optimizer.learning_rate=0.01",
          "train.optimizer.compress_after_step=2",
          "compression.gradients=sign(block=0)", "model.layers=6"};
}

std::vector<std::string> WithNodes(std::vector<std::string> overrides) {
  overrides.push_back("parallel.nodes=2");
  return overrides;
}

class EarlySyncJobTest : public ::testing::TestWithParam<Case> {};

TEST_P(EarlySyncJobTest, HasTheBitsOfOneThatWaitsForItsLastBackward) {
  const Case& test = GetParam();
  const EarlyJob job = {test.stages,
                        test.replicas,
                        Large(test.replicas, test.overrides),
                        test.width,
                        {}};

  const EarlyRun early = RunJob(job, true);
  const EarlyRun late = RunJob(job, false);

  ExpectSuccess(early.result);
  ExpectSuccess(late.result);
  EXPECT_EQ(early.num_watched, 4 * test.stages * test.replicas);
  EXPECT_EQ(early.result.losses, late.result.losses);
  EXPECT_TRUE(early.result.weights == late.result.weights);
  for (const auto& [rank, reports] : early.result.reports) {
    const std::vector<v1::StepReport>& others = late.result.reports.at(rank);
    for (size_t i = 0; i < reports.size(); ++i) {
      EXPECT_EQ(reports[i].gradient_norm(), others[i].gradient_norm());
      EXPECT_EQ(reports[i].weights_hash(), others[i].weights_hash());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, EarlySyncJobTest,
    ::testing::Values(
        Case{1, 2, {"train.optimizer.kind=sgd"}},
        Case{1, 3, {"train.optimizer.kind=adamw"}},
        Case{2, 2, {"train.optimizer.kind=lamb"}},
        Case{1, 2, {"train.optimizer.kind=adam", "parallel.schedule=gpipe"}},
        Case{1, 2, {"compression.gradients=cast(bf16)"}},
        Case{1, 2, {"compression.gradients=cast(bf16)", "model.layers=6"}},
        Case{1, 2, {"train.precision=bf16"}},
        Case{1, 2, {"train.precision=fp16"}}, Case{1, 4, {"parallel.nodes=2"}},
        Case{1,
             4,
             {"parallel.nodes=2", "compression.gradients=cast(bf16)",
              "model.layers=6"}},
        Case{1, 4, WithNodes(InOneBit("onebit_adam"))},
        Case{1, 4, WithNodes(InOneBit("zero_one_adam"))},
        Case{2,
             2,
             {"model.tied=on", "train.optimizer.kind=lamb"},
             kWidth * 9 / 5},
        Case{2,
             2,
             {"model.tied=on", "train.optimizer.kind=onebit_lamb",
              "train.optimizer.learning_rate=0.01",
              "train.optimizer.compress_after_step=2",
              "compression.gradients=sign(block=0)"},
             1000},
        Case{4,
             2,
             {"model.tied=on", "train.optimizer.kind=zero_one_adam",
              "train.optimizer.learning_rate=0.01",
              "train.optimizer.compress_after_step=2",
              "compression.gradients=sign(block=0)"},
             1000},
        Case{1, 2, InOneBit("onebit_adam")},
        Case{1, 2, InOneBit("onebit_lamb")},
        Case{1, 2, InOneBit("zero_one_adam")}),
    [](const auto& info) { return absl::StrCat("Case", info.index); });

// Of two replicas one cannot tell, such as one on another device.
TEST(EarlySyncTest, AReplicaThatWaitsChangesNoBit) {
  const auto run = [](int tells_from_stage) {
    std::atomic<int> num_stages{0};
    Job job(1, 2, Large(2));
    Widen(kWidth, &job);
    job.make_stage = [&](const v1::JobSpec& spec, const v1::StagePlan& plan)
        -> absl::StatusOr<std::unique_ptr<Stage>> {
      auto stage = std::make_unique<ElementwiseStage>(spec, plan.first_layer(),
                                                      plan.end_layer());
      stage->tells_early = num_stages++ >= tells_from_stage;
      return {std::move(stage)};
    };
    return job.Run();
  };

  const RunResult mixed = run(1);
  const RunResult late = run(2);

  ExpectSuccess(mixed);
  ExpectSuccess(late);
  EXPECT_EQ(mixed.losses, late.losses);
  EXPECT_TRUE(mixed.weights == late.weights);
}

// In the last backward each rank waits, before its first layer, for gradients
// of its last layers to have arrived at the other.
TEST(EarlySyncTest, LateLayersTravelBeforeTheFirstIsDone) {
  constexpr int64_t kBytesOfABucket =
      2 * kBucketElementsPerRank * sizeof(float);
  std::vector<std::vector<std::shared_ptr<Recording>>> links(2);
  Job job(1, 2, Large(2));
  Widen(kWidth, &job);
  job.decorate = [&](std::unique_ptr<Channel> channel, int rank, int,
                     int) -> std::unique_ptr<Channel> {
    auto recording = std::make_shared<Recording>();
    links[static_cast<size_t>(rank)].push_back(recording);
    return RecordChannel(std::move(channel), recording);
  };
  std::atomic<int> num_late{0};
  job.before_forward = [&](int rank, ElementwiseStage* stage, int64_t, int) {
    const auto received = [own = &links[static_cast<size_t>(rank)]] {
      int64_t bytes = 0;
      for (const auto& link : *own) bytes += link->received().num_bytes;
      return bytes;
    };
    const int64_t before = received();
    stage->before_layer_backward = [=, &num_late](int mb, int layer) {
      if (mb != kLastMicrobatch || layer > 0) return absl::OkStatus();
      const Deadline deadline = Deadline::After(std::chrono::seconds(20));
      while (received() - before < kBytesOfABucket) {
        if (deadline.has_passed()) {
          ++num_late;
          break;
        }
        std::this_thread::yield();
      }
      return absl::OkStatus();
    };
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  EXPECT_EQ(num_late, 0);
}

class EarlyNonFiniteTest
    : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(EarlyNonFiniteTest, GradientOnOneReplicaSkipsTheStepOnAll) {
  Job job(1, 2, Large(2, GetParam()));
  Widen(kWidth, &job);
  job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                          int) {
    stage->before_layer_backward = [=](int mb, int layer) {
      if (rank == 1 && step == 2 && mb == kLastMicrobatch && layer == 3) {
        stage->gradients().back() = std::numeric_limits<float>::infinity();
      }
      return absl::OkStatus();
    };
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      EXPECT_EQ(report.skipped_steps(), report.step() == 2 ? 1 : 0)
          << "rank " << rank << ", step " << report.step();
    }
  }
  EXPECT_TRUE(std::isfinite(result.losses.back()));
  EXPECT_TRUE(result.weights.at(0) == result.weights.at(1));
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, EarlyNonFiniteTest,
    ::testing::Values(std::vector<std::string>{},
                      std::vector<std::string>{
                          "compression.gradients=cast(bf16)", "model.layers=6"},
                      InOneBit("onebit_adam"), InOneBit("onebit_lamb")));

/// Marks an input's gradient that is not finite as stages of fp16 do: last, in
/// what nobody was told of.
class MarkingStage : public ElementwiseStage {
 public:
  MarkingStage(const v1::JobSpec& spec, const v1::StagePlan& plan)
      : ElementwiseStage(spec, plan.first_layer(), plan.end_layer()) {}
  bool WatchNextBackward(std::function<void(int64_t)> on_final) override {
    const auto size = static_cast<int64_t>(gradients().size());
    return ElementwiseStage::WatchNextBackward(
        [size, on_final = std::move(on_final)](int64_t num_final) {
          if (num_final < size) on_final(num_final);
        });
  }
  absl::StatusOr<TensorRef> Backward(int microbatch,
                                     const TensorRef& gradient) override {
    auto result = ElementwiseStage::Backward(microbatch, gradient);
    if (microbatch == kLastMicrobatch && marks_next_) {
      gradients()[static_cast<size_t>(gradient_order().back().end) - 1] =
          std::numeric_limits<float>::quiet_NaN();
    }
    return result;
  }
  void MarkNext(bool marks) { marks_next_ = marks; }

 private:
  bool marks_next_ = false;
};

TEST(EarlySyncTest, AnInputThatOverflowsOnOneReplicaSkipsTheStepOnAll) {
  for (const bool tells_early : {true, false}) {
    std::atomic<int> num_made{0};
    Job job(2, 2, Large(2, {"train.precision=fp16"}));
    Widen(kWidth * 3 / 2, &job);
    job.make_stage = [&](const v1::JobSpec& spec, const v1::StagePlan& plan)
        -> absl::StatusOr<std::unique_ptr<Stage>> {
      auto stage = std::make_unique<MarkingStage>(spec, plan);
      stage->tells_early = tells_early;
      const bool is_marked = plan.first_layer() > 0 && num_made++ == 0;
      stage->before_forward = [is_marked, raw = stage.get()](int64_t step,
                                                             int) {
        raw->MarkNext(is_marked && step == 2);
        return absl::OkStatus();
      };
      return {std::move(stage)};
    };

    const RunResult result = job.Run();

    ExpectSuccess(result);
    for (const auto& [rank, reports] : result.reports) {
      for (const v1::StepReport& report : reports) {
        EXPECT_EQ(report.skipped_steps(), report.step() == 2 ? 1 : 0)
            << "rank " << rank << ", step " << report.step();
        EXPECT_EQ(report.loss_scale(), report.step() <= 2 ? 65536 : 32768);
      }
    }
    EXPECT_TRUE(result.weights.at(0) == result.weights.at(1));
    EXPECT_TRUE(result.weights.at(2) == result.weights.at(3));
    EXPECT_TRUE(std::isfinite(result.losses.back()));
  }
}

// Some of its gradients are on their way by then.
class EarlyFailureTest : public ::testing::TestWithParam<Case> {};

TEST_P(EarlyFailureTest, ABackwardThatFailsEndsAllWithTheCause) {
  const Case& test = GetParam();
  Job job(test.stages, test.replicas, Large(2, test.overrides));
  Widen(test.width, &job);
  job.before_forward = [](int rank, ElementwiseStage* stage, int64_t step,
                          int) {
    stage->before_layer_backward = [rank, step](int mb, int layer) {
      return rank == 1 && step == 2 && mb == kLastMicrobatch && layer == 0
                 ? absl::ResourceExhaustedError("device memory is exhausted")
                 : absl::OkStatus();
    };
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  const v1::AssignmentDone& cause = result.done.at(1);
  EXPECT_THAT(cause.error_message(),
              AllOf(HasSubstr("stage 0, replica 1, step 3"),
                    HasSubstr("BACKWARD of micro-batch 1"),
                    HasSubstr("device memory is exhausted")));
  EXPECT_FALSE(cause.is_consequence());
  EXPECT_NE(result.done.at(0).error_code(), 0);
  EXPECT_TRUE(result.done.at(0).is_consequence())
      << result.done.at(0).error_message();
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, EarlyFailureTest,
    ::testing::Values(Case{1, 2, {}},
                      Case{2, 2, {"model.tied=on"}, kWidth * 9 / 5}),
    [](const auto& info) { return absl::StrCat("Case", info.index); });

// What each replica did is told after the last backward, and weights what it
// sends.
TEST(EarlySyncTest, ReplicasThatMayLeaveOutWorkWait) {
  EarlyJob job;
  job.overrides = {"train.steps=3", "stragglers.policy=drop",
                   "stragglers.max_drop_rate=1"};
  job.executed = {{4, 3}, {0, 4}, {4, 4}};

  const EarlyRun early = RunJob(job, true);
  const EarlyRun late = RunJob(job, false);

  ExpectSuccess(early.result);
  EXPECT_EQ(early.num_watched, 0);
  EXPECT_EQ(early.result.losses, late.result.losses);
  EXPECT_EQ(early.result.reports.at(1)[0].microbatches(0), 3);
}

// Where work may move, its numbers are known before the step.
TEST(EarlySyncTest, ReplicasThatMayMoveWorkStartEarly) {
  EarlyJob job;
  job.overrides = {"train.steps=3", "stragglers.policy=rebalance"};

  const EarlyRun early = RunJob(job, true);
  const EarlyRun late = RunJob(job, false);

  ExpectSuccess(early.result);
  EXPECT_EQ(early.num_watched, 2 * 3);
  EXPECT_EQ(early.result.losses, late.result.losses);
}

// Replicas go on by themselves in steps that synchronise nothing.
TEST(EarlySyncTest, WhatIsNotSynchronisedIsNotWatched) {
  EarlyJob job;
  job.overrides = {"train.steps=6",
                   "train.optimizer.kind=zero_one_adam",
                   "train.optimizer.learning_rate=0.01",
                   "train.optimizer.compress_after_step=2",
                   "train.optimizer.local_step_scaler=1",
                   "train.optimizer.local_step_clipper=2",
                   "compression.gradients=sign(block=0)"};

  const EarlyRun early = RunJob(job, true);
  const EarlyRun late = RunJob(job, false);

  ExpectSuccess(early.result);
  EXPECT_LT(early.num_watched, 2 * 6);
  EXPECT_GT(early.num_watched, 2 * 2);
  EXPECT_EQ(early.result.losses, late.result.losses);
}

TEST(EarlySyncTest, SharedOutStateWaits) {
  EarlyJob job;
  job.overrides = {"train.steps=3", "train.optimizer.shard_state=on"};

  const EarlyRun early = RunJob(job, true);

  ExpectSuccess(early.result);
  EXPECT_EQ(early.num_watched, 0);
}

}  // namespace
}  // namespace deltapipe
