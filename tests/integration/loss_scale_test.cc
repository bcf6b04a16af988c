// The loss scale of train.precision: fp16 in the engine as a whole: one rank's
// overflow is everybody's, and a job goes on with the scale it had.
#include <gmock/gmock.h>
#include <stdlib.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/temporary_folder.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

/// Gradients overflow on rank 3 in these steps.
void OverflowIn(std::vector<int64_t> steps, Job* job) {
  job->before_forward = [steps](int rank, ElementwiseStage* stage, int64_t step,
                                int mb) {
    if (rank == 3 && mb == 1 &&
        std::count(steps.begin(), steps.end(), step) > 0) {
      stage->gradients()[5] = std::numeric_limits<float>::infinity();
    }
    return absl::OkStatus();
  };
}

TEST(LossScaleJobTest, AnOverflowIsSkippedByAllAndHalvesTheScale) {
  for (const char* shard_state : {"off", "on"}) {
    Job job(2, 2,
            {"train.precision=fp16", "train.optimizer.kind=adamw",
             absl::StrCat("train.optimizer.shard_state=", shard_state)});
    OverflowIn({5, 9}, &job);

    const RunResult result = job.Run();

    ExpectSuccess(result);
    for (const auto& [rank, reports] : result.reports) {
      for (const v1::StepReport& report : reports) {
        const int64_t step = report.step();
        const double expected = step <= 5 ? 65536 : step <= 9 ? 32768 : 16384;
        EXPECT_EQ(report.loss_scale(), expected)
            << "rank " << rank << ", step " << step;
        EXPECT_EQ(report.skipped_steps(), step == 5 || step == 9 ? 1 : 0)
            << "rank " << rank << ", step " << step;
      }
    }
    EXPECT_EQ(result.weights.at(0), result.weights.at(1));
    EXPECT_EQ(result.weights.at(2), result.weights.at(3));
    EXPECT_LT(result.losses.back(), result.losses.front());
  }
}

// The update of a step is told of while the next one is computed and the one
// after that has begun: both have the former scale still, on all ranks.
TEST(LossScaleJobTest, WithoutAFlushAnOverflowIsSkippedAndHalvesTheScale) {
  Job job(2, 2,
          {"parallel.schedule=2bw", "train.precision=fp16",
           "train.optimizer.kind=adamw"});
  OverflowIn({5, 12}, &job);

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const auto& [rank, reports] : result.reports) {
    for (const v1::StepReport& report : reports) {
      const int64_t step = report.step();
      EXPECT_EQ(report.skipped_steps(), step == 5 || step == 12 ? 1 : 0)
          << "rank " << rank << ", step " << step;
      const double expected = step <= 7 ? 65536 : step <= 14 ? 32768 : 16384;
      EXPECT_EQ(report.loss_scale(), expected)
          << "rank " << rank << ", step " << step;
    }
  }
  EXPECT_EQ(result.weights.at(0), result.weights.at(1));
  EXPECT_EQ(result.weights.at(2), result.weights.at(3));
  EXPECT_LT(result.losses.back(), result.losses.front());
}

TEST(LossScaleJobTest, ANumberStaysWhateverOverflows) {
  Job job(2, 2, {"train.precision=fp16", "train.loss_scale=128"});
  OverflowIn({5}, &job);

  const RunResult result = job.Run();

  ExpectSuccess(result);
  for (const v1::StepReport& report : result.reports.at(0)) {
    EXPECT_EQ(report.loss_scale(), 128);
    EXPECT_EQ(report.skipped_steps(), report.step() == 5 ? 1 : 0);
  }
}

TEST(LossScaleJobTest, OtherPrecisionsHaveNone) {
  const RunResult result = Job(1, 1, {"train.precision=bf16"}).Run();

  ExpectSuccess(result);
  for (const v1::StepReport& report : result.reports.at(0)) {
    EXPECT_EQ(report.loss_scale(), 0);
  }
}

TEST(LossScaleJobTest, ACheckpointKeepsTheScale) {
  const auto folder = TemporaryFolder::Create("checkpoints");
  ASSERT_TRUE(folder.ok()) << folder.status();
  const auto make = [&](uint64_t generation) {
    auto job = std::make_unique<Job>(
        2, 2,
        std::vector<std::string>{"train.precision=fp16", "checkpoint.every=4"});
    job->takes_checkpoints = true;
    job->assignment().set_checkpoint_folder(folder->path());
    job->assignment().set_generation(generation);
    return job;
  };
  const auto broken = make(3);
  OverflowIn({1, 2, 3}, broken.get());
  broken->after_step = [](int, int64_t step, Training* training) {
    if (step == 14) training->Cancel(absl::UnavailableError("broken"));
  };
  broken->Run();
  const auto resumed = make(4);
  resumed->assignment().set_resume(true);

  const RunResult rest = resumed->Run();

  ExpectSuccess(rest);
  EXPECT_GE(rest.ready.at(0).restored_step(), 4);
  for (const auto& [rank, reports] : rest.reports) {
    ASSERT_FALSE(reports.empty());
    EXPECT_EQ(reports.front().loss_scale(), 65536 / 8) << "rank " << rank;
  }
}

}  // namespace
}  // namespace deltapipe
