#include "coordinator/background/straggler_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "coordinator/stragglers/testing_timings.h"
#include "coordinator/stragglers/testing_traces.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr unsigned kSeed = 20;

NoisyJob TwoByThree() {
  NoisyJob job;
  job.num_stages = 2;
  job.num_replicas = 3;
  job.num_microbatches = 6;
  job.jitter = 0.02;
  return job;
}

v1::Plan PlanOf(const NoisyJob& job) {
  v1::Plan plan;
  plan.set_num_stages(job.num_stages);
  plan.set_num_replicas(job.num_replicas);
  plan.set_num_microbatches(job.num_microbatches);
  plan.set_schedule("1f1b");
  return plan;
}

class StragglerWatchTest : public ::testing::Test {
 protected:
  StragglerWatchTest() : source_(job_, kSeed) {
    EXPECT_TRUE(watch_.Begin(PlanOf(job_)).ok());
    RecordProperty("seed", kSeed);
  }

  int num_ranks() const { return job_.num_stages * job_.num_replicas; }

  /// The step of all workers; each may have traced the one before or after too.
  std::vector<StragglerChange> Sample(int64_t step) {
    watch_.BeginSample();
    const StepTimings timings = source_.Step(step);
    for (int rank = 0; rank < num_ranks(); ++rank) {
      const WorkerTimings& worker = timings.workers[static_cast<size_t>(rank)];
      const int64_t other = rank % 2 == 0 ? step - 1 : step + 1;
      watch_.AddTrace(rank, TraceOf(worker, step, /*begin_nanos=*/rank * 7));
      watch_.AddTrace(rank, TraceOf(worker, other));
    }
    const auto changes = watch_.EndSample();
    EXPECT_TRUE(changes.ok()) << changes.status();
    EXPECT_EQ(watch_.last_step(), step);
    return changes.ok() ? *changes : std::vector<StragglerChange>();
  }
  /// Eight samples: as many as the detector judges by.
  std::vector<StragglerChange> SampleWindow(int64_t first_step) {
    std::vector<StragglerChange> all;
    for (int i = 0; i < 8; ++i) {
      for (StragglerChange& change : Sample(first_step + 10 * i)) {
        all.push_back(std::move(change));
      }
    }
    return all;
  }
  void ReportSends(int rank, int64_t steps, double activation_seconds) {
    v1::StepReport report;
    report.set_steps(steps);
    v1::LinkReport* link = report.add_links();
    link->set_send_seconds(activation_seconds);
    watch_.AddReport(rank, report);
  }

  const NoisyJob job_ = TwoByThree();
  TimingsSource source_;
  StragglerWatch watch_;
};

TEST_F(StragglerWatchTest, SlowComputeIsFoundOnceAndClearedOnce) {
  source_.SlowCompute(1, 2, 1.5);
  const auto found = SampleWindow(10);
  const auto still = SampleWindow(110);
  source_.Heal();
  const auto healed = SampleWindow(210);

  ASSERT_THAT(found, SizeIs(1));
  EXPECT_FALSE(found[0].is_cleared);
  EXPECT_EQ(found[0].finding.scope, (WorkerScope{1, 2}));
  EXPECT_EQ(found[0].finding.cause, StragglerCause::kCompute);
  EXPECT_NEAR(found[0].finding.shift, 0.5, 0.05);
  EXPECT_GT(found[0].finding.seconds_lost_per_step, 0);
  EXPECT_THAT(still, IsEmpty());
  ASSERT_THAT(healed, SizeIs(1));
  EXPECT_TRUE(healed[0].is_cleared);
  EXPECT_THAT(watch_.findings(), IsEmpty());
}

TEST_F(StragglerWatchTest, SlowInputIsNoSlowCompute) {
  source_.SlowInput(0, 2, 0.4);
  const auto found = SampleWindow(10);

  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].finding.scope, (WorkerScope{0, 2}));
  EXPECT_EQ(found[0].finding.cause, StragglerCause::kInput);
  // 6 micro-batches of 40 % of 12 ms.
  EXPECT_NEAR(found[0].finding.seconds_lost_per_step, 0.0288, 0.004);
  EXPECT_THAT(StragglerChangeText(found[0], 3, ""),
              HasSubstr("% of its compute: 0.029 s a step lost; cause: input"));
}

TEST_F(StragglerWatchTest, ReportScoresTheSlowWorkerHighest) {
  source_.SlowCompute(0, 1, 2);
  SampleWindow(10);

  const WhatIfReport& report = *watch_.report();
  EXPECT_EQ(report.worst, (WorkerScope{0, 1}));
  EXPECT_GT(report.Score(0, 1), 1.3);
  EXPECT_LT(report.Score(0, 0), 1.2);
  EXPECT_GT(report.best_fix_seconds, 0);
}

TEST_F(StragglerWatchTest, SlowLinkIsFoundByWhatReportsCount) {
  std::vector<StragglerChange> all;
  for (int i = 0; i < 9; ++i) {
    for (int replica = 0; replica < job_.num_replicas; ++replica) {
      // Counters never begin at 0 for those who come later.
      const double per_step = replica == 1 ? 0.09 : 0.03;
      ReportSends(replica, 10, 100 + per_step * 10 * i);
    }
    for (StragglerChange& change : Sample(10 + 10 * i)) {
      all.push_back(std::move(change));
    }
  }

  ASSERT_THAT(all, SizeIs(1));
  EXPECT_EQ(all[0].finding.scope, (WorkerScope{0, 1}));
  EXPECT_EQ(all[0].finding.cause, StragglerCause::kActivationLink);
  EXPECT_NEAR(all[0].finding.shift, 2, 1e-6);
}

TEST_F(StragglerWatchTest, WorkersTooFarApartAreAskedForMore) {
  EXPECT_EQ(watch_.BeginSample(), StragglerWatch::kMinTracedSteps);
  const StepTimings timings = source_.Step(10);
  for (int rank = 0; rank < num_ranks(); ++rank) {
    watch_.AddTrace(rank, TraceOf(timings.workers[0], rank == 3 ? 14 : 10));
  }

  const auto changes = watch_.EndSample();

  EXPECT_EQ(changes.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(watch_.BeginSample(), 2 * StragglerWatch::kMinTracedSteps);
  EXPECT_EQ(watch_.last_step(), -1);
}

TEST_F(StragglerWatchTest, TracesThatDoNotFitAreRefusedAndChangeNothing) {
  source_.SlowCompute(1, 2, 1.5);
  SampleWindow(10);
  watch_.BeginSample();
  for (int rank = 0; rank < num_ranks(); ++rank) {
    watch_.AddTrace(rank,
                    TraceOf(EmptyTimings(1, 1, rank).workers[0], /*step=*/200));
  }

  EXPECT_EQ(watch_.EndSample().status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(watch_.findings(), SizeIs(1));
  EXPECT_EQ(watch_.last_step(), 80);
}

TEST_F(StragglerWatchTest, BeginForgets) {
  source_.SlowCompute(1, 2, 1.5);
  SampleWindow(10);

  ASSERT_TRUE(watch_.Begin(PlanOf(job_)).ok());

  EXPECT_THAT(watch_.findings(), IsEmpty());
  EXPECT_FALSE(watch_.report().has_value());
  EXPECT_EQ(watch_.last_step(), -1);
}

TEST_F(StragglerWatchTest, ASuccessorGoesOnAndTellsOnlyWhatChanges) {
  source_.SlowCompute(1, 2, 1.5);
  SampleWindow(10);
  const StragglerMemory memory = watch_.Remember();
  ASSERT_TRUE(watch_.Begin(PlanOf(job_)).ok());

  watch_.Restore(memory);
  EXPECT_THAT(watch_.findings(), SizeIs(1));
  EXPECT_EQ(watch_.last_step(), 80);
  EXPECT_TRUE(watch_.report().has_value());
  EXPECT_THAT(SampleWindow(110), IsEmpty());
  source_.Heal();
  const auto healed = SampleWindow(210);

  ASSERT_THAT(healed, SizeIs(1));
  EXPECT_TRUE(healed[0].is_cleared);
}

TEST_F(StragglerWatchTest, UnknownScheduleIsSaidAndSamplesAreIgnored) {
  v1::Plan plan = PlanOf(job_);
  plan.set_schedule("zigzag");

  EXPECT_EQ(watch_.Begin(plan).code(), absl::StatusCode::kInvalidArgument);
  watch_.AddReport(0, v1::StepReport());
  watch_.AddTrace(0, v1::StepTrace());
  EXPECT_THAT(*watch_.EndSample(), IsEmpty());
}

TEST(StragglerChangeTextTest, NamesWhoWhatAndHowMuch) {
  StragglerChange change;
  change.finding.scope = {1, 2};
  change.finding.shift = 0.52;
  change.finding.seconds_lost_per_step = 0.21;

  EXPECT_EQ(
      StragglerChangeText(change, 3, "worker-5 on host-b"),
      "stage 1, replica 2 (worker-5 on host-b) computes 1.52 x as long as "
      "its peers: 0.21 s a step lost; cause: compute");
  EXPECT_THAT(StragglerChangeText(change, 1, ""),
              HasSubstr("1.52 x as long as in its first steps"));
  change.finding.cause = StragglerCause::kStageImbalance;
  change.finding.scope = {3, -1};
  EXPECT_EQ(
      StragglerChangeText(change, 3, ""),
      "stage 3 computes 1.52 x as long as the other stages: 0.21 s a step "
      "lost; cause: stage imbalance");
  change.is_cleared = true;
  EXPECT_EQ(StragglerChangeText(change, 3, ""),
            "stage 3 slows the job down no longer; cause was: stage imbalance");
}

}  // namespace
}  // namespace deltapipe
