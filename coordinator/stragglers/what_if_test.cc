#include "coordinator/stragglers/what_if.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "coordinator/schedule/simulate.h"
#include "coordinator/stragglers/testing_timings.h"

namespace deltapipe {
namespace {

using testing::HasSubstr;

Schedule Parsed(const std::string& text) { return ParseSchedule(text).value(); }

WhatIf Replayed(const std::string& schedule, std::vector<StepTimings> steps) {
  absl::StatusOr<WhatIf> what_if =
      WhatIf::Create(Parsed(schedule), std::move(steps));
  EXPECT_TRUE(what_if.ok()) << what_if.status();
  return *what_if;
}

// The planner's simulator knows constant costs per stage; both must agree on
// any schedule. 300 random pipelines, seed printed.
TEST(WhatIfTest, ReplaysConstantCostsLikeThePlanner) {
  const unsigned seed = 20250105;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> cost(0.1, 2);
  const char* schedules[] = {"gpipe", "1f1b", "1f1b+2"};
  for (int round = 0; round < 300; ++round) {
    const int num_stages = 1 + static_cast<int>(random() % 5);
    const int num_microbatches = 1 + static_cast<int>(random() % 9);
    const Schedule schedule = Parsed(schedules[round % 3]);
    PipelineModel model;
    StepTimings step = EmptyTimings(num_stages, 1, num_microbatches);
    for (int stage = 0; stage < num_stages; ++stage) {
      StageModel costs;
      costs.forward_seconds = cost(random);
      costs.backward_seconds = cost(random);
      WorkerTimings& worker = step.At(stage, 0);
      worker.forward_seconds.assign(num_microbatches, costs.forward_seconds);
      worker.backward_seconds.assign(num_microbatches, costs.backward_seconds);
      model.stages.push_back(costs);
      if (stage + 1 == num_stages) break;
      LinkModel link;
      link.bits_per_second = 8;
      link.activation.bytes = cost(random);
      link.gradient.bytes = cost(random);
      model.links.push_back(link);
      worker.activation_send_seconds.assign(num_microbatches,
                                            link.activation.bytes);
      step.At(stage + 1, 0)
          .gradient_send_seconds.assign(num_microbatches, link.gradient.bytes);
    }
    const absl::StatusOr<Simulation> simulation =
        Simulate(ProgramsOf(schedule, {num_stages, num_microbatches}), model);
    ASSERT_TRUE(simulation.ok()) << simulation.status();

    EXPECT_NEAR(Replayed(schedules[round % 3], {step}).StepSeconds(),
                simulation->step_seconds, 1e-9);
  }
}

TEST(WhatIfTest, ACollectiveWaitsForItsLastReplica) {
  StepTimings step = UniformTimings(2, 2, 4, {1, 2});
  step.At(1, 1).forward_seconds.assign(4, 2);
  // Replica 0 waits within the collective for the 4 s that the other is late.
  step.At(0, 0).reduce_seconds = step.At(1, 0).reduce_seconds = 4.5;
  step.At(0, 1).reduce_seconds = step.At(1, 1).reduce_seconds = 0.5;

  // (4 + 2 - 1) * 3 s without the slow one; its stage adds 4 s.
  EXPECT_DOUBLE_EQ(Replayed("1f1b", {step}).StepSeconds(), 15 + 4 + 0.5);
}

TEST(WhatIfTest, OnlyTheFixedWorkChanges) {
  StepTimings step = UniformTimings(3, 4, 8, {1, 2});
  for (WorkerTimings& worker : step.workers) {
    worker.load_seconds.assign(8, 0.1);
  }
  WorkerTimings& slow = step.At(2, 2);
  slow.load_seconds.assign(8, 0.6);
  const WhatIf what_if = Replayed("1f1b", {step});
  const double ideal = what_if.IdealSeconds();

  EXPECT_GT(what_if.StepSeconds(), ideal + 1);
  EXPECT_DOUBLE_EQ(what_if.FixedSeconds({2, 2}), ideal);
  EXPECT_DOUBLE_EQ(what_if.FixedSeconds({2, -1}), ideal);
  EXPECT_DOUBLE_EQ(what_if.FixedSeconds({-1, 2}), ideal);
  EXPECT_DOUBLE_EQ(what_if.FixedSeconds({2, 2}, {false, false, true}), ideal);
  EXPECT_DOUBLE_EQ(what_if.FixedSeconds({2, 2}, {true, true, false}),
                   what_if.StepSeconds());
  EXPECT_DOUBLE_EQ(what_if.FixedSeconds({0, 2}), what_if.StepSeconds());
  EXPECT_DOUBLE_EQ(what_if.OnlySeconds({2, -1}), what_if.StepSeconds());
  EXPECT_DOUBLE_EQ(what_if.OnlySeconds({0, -1}), ideal);
}

// One worker of a noisy job is slower: how much longer the job's steps become
// is known from the same job without it. 4 stages x 8 replicas and 4 x 4.
TEST(WhatIfTest, InjectedSlowdownsAreEstimatedWithinATenth) {
  for (const double times : {1.2, 1.4, 2.0}) {
    for (const int num_replicas : {4, 8}) {
      for (unsigned seed = 1; seed <= 5; ++seed) {
        SCOPED_TRACE(testing::Message() << times << " x, " << num_replicas
                                        << " replicas, seed " << seed);
        const int stage = static_cast<int>(seed % 4);
        const int replica = static_cast<int>(seed * 3 % num_replicas);
        TimingsSource healthy({4, num_replicas, 16, 0.05}, seed);
        TimingsSource slowed({4, num_replicas, 16, 0.05}, seed);
        slowed.SlowCompute(stage, replica, times);
        std::vector<StepTimings> healthy_steps, slowed_steps;
        for (int i = 0; i < 10; ++i) {
          healthy_steps.push_back(healthy.Step(i));
          slowed_steps.push_back(slowed.Step(i));
        }
        const double truth = Replayed("1f1b", slowed_steps).StepSeconds() /
                             Replayed("1f1b", healthy_steps).StepSeconds();

        const WhatIfReport report = Replayed("1f1b", slowed_steps).Report();

        // The jitter of the healthy job is part of its own slowdown.
        const double healthy_slowdown =
            Replayed("1f1b", healthy_steps).Report().slowdown;
        EXPECT_NEAR(report.slowdown, truth, 0.1);
        EXPECT_NEAR(report.slowdown / healthy_slowdown, truth, 0.02);
        EXPECT_TRUE(report.worst == (WorkerScope{stage, replica}));
        EXPECT_TRUE(report.best_fix == report.worst);
        EXPECT_NEAR(report.worst_seconds_lost / report.step_seconds,
                    1 - 1 / truth, 0.03);
        EXPECT_GT(report.Score(stage, replica), 1 + 0.7 * (truth - 1));
        EXPECT_LT(report.Score((stage + 1) % 4, (replica + 1) % num_replicas),
                  1 + 0.5 * (truth - 1) + 0.05);
      }
    }
  }
}

TEST(WhatIfTest, ALastStageThatDoesTooMuchIsTheBestFix) {
  // Links that cost nothing: they would hide part of it.
  TimingsSource source({4, 4, 16, 0.02, {0.004, 0.008}, 0}, 3);
  for (int replica = 0; replica < 4; ++replica) {
    source.SlowCompute(3, replica, 1.6);
  }

  const WhatIfReport report = Replayed("1f1b", {source.Step(0)}).Report();

  EXPECT_EQ(report.best_fix.stage, 3);
  EXPECT_EQ(report.best_fix.replica, -1);
  EXPECT_GT(report.last_stage_share, 0.8);
  // Its work does not vanish: the ideal spreads it over the stages.
  EXPECT_NEAR(report.slowdown, (1.6 * 16 + 3) / (1.15 * 19), 0.05);
}

TEST(WhatIfTest, ReplicasMayHaveExecutedDifferentCounts) {
  StepTimings step = UniformTimings(2, 3, 6, {1, 2});
  for (int stage = 0; stage < 2; ++stage) {
    step.At(stage, 1) = UniformTimings(2, 1, 2, {1, 2}).At(stage, 0);
    step.At(stage, 2) = WorkerTimings();
  }

  EXPECT_DOUBLE_EQ(Replayed("1f1b", {step}).StepSeconds(), (6 + 1) * 3);
}

TEST(WhatIfTest, RefusesTimingsThatCannotBe) {
  const auto message = [](std::vector<StepTimings> steps) {
    return std::string(
        WhatIf::Create(Parsed("1f1b"), std::move(steps)).status().message());
  };
  EXPECT_THAT(message({}), HasSubstr("no step to replay"));
  StepTimings step = UniformTimings(2, 2, 4, {1, 2});
  step.step = 7;
  StepTimings missing = step;
  missing.workers.pop_back();
  EXPECT_THAT(message({missing}),
              HasSubstr("step 7 are of 3 workers, expected 2 stages of 2"));
  StepTimings other = step;
  other.At(1, 0).backward_seconds.pop_back();
  EXPECT_THAT(message({other}),
              HasSubstr("step 7, stage 1, replica 0 are of 3 micro-batches, "
                        "expected 4"));
  for (const double bad : {-1.0, std::nan("")}) {
    StepTimings broken = step;
    broken.At(0, 1).load_seconds = {0, 0, bad, 0};
    EXPECT_THAT(message({broken}), HasSubstr("stage 0, replica 1: "));
  }
}

}  // namespace
}  // namespace deltapipe
