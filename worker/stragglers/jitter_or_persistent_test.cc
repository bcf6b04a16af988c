#include "worker/stragglers/jitter_or_persistent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "base/latency_model.h"
#include "worker/stragglers/step_simulator.h"

namespace deltapipe {
namespace {

using testing::Each;
using testing::HasSubstr;

using Seconds =
    std::function<double(int replica, int64_t step, int microbatch, int part)>;

std::vector<StepObservation> Observed(const SimulatedJob& job, int num_steps,
                                      const std::vector<int>& counts) {
  std::vector<StepObservation> steps;
  for (int i = 0; i < num_steps; ++i) {
    StepObservation step;
    step.step = i;
    double longest = 0;
    for (int r = 0; r < job.num_replicas; ++r) {
      step.replicas.push_back(SimulateReplica(
          job, i, r, counts[r], [](int, double) { return true; }));
      longest = std::max(longest, step.replicas[r].done_seconds.back());
    }
    for (ReplicaObservation& replica : step.replicas) {
      replica.step_seconds = longest + job.rest_seconds;
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

SlownessVerdict Verdict(const std::string& inject, uint64_t seed,
                        const SlownessOptions& options = {},
                        int num_stages = 1) {
  const absl::StatusOr<LatencyModel> model = LatencyModel::Parse(inject, seed);
  EXPECT_TRUE(model.ok()) << model.status();
  const SimulatedJob job = {
      8, num_stages, 16, 2, [&](int r, int64_t step, int m, int part) {
        return 1 + model->ExtraSeconds(r, step, m, 1, part);
      }};
  const absl::StatusOr<SlownessVerdict> verdict =
      JitterOrPersistent(Observed(job, 40, std::vector<int>(8, 16)), options);
  EXPECT_TRUE(verdict.ok()) << verdict.status();
  return verdict.value_or(SlownessVerdict());
}

// A quarter's median of 10 steps of 16 micro-batches has a spread of about 4 %
// of its mean: 10 % in all 4 quarters happen less than once in 1e8 replicas.
TEST(JitterOrPersistentTest, JitterIsNeverTakenForPersistence) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const SlownessVerdict verdict = Verdict("lognormal:1.0", seed);

    EXPECT_EQ(verdict.remedy, Remedy::kDrop) << seed;
    EXPECT_EQ(verdict.replica, -1) << seed;
    EXPECT_THAT(verdict.counts, Each(16));
  }
}

TEST(JitterOrPersistentTest, PersistenceIsSeenThroughJitter) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    const SlownessVerdict verdict =
        Verdict("lognormal:0.5;slow:rank=5,x=1.5", seed);

    EXPECT_EQ(verdict.remedy, Remedy::kRebalance) << seed;
    EXPECT_EQ(verdict.replica, 5) << seed;
    EXPECT_LT(verdict.counts[5], 16);
    EXPECT_GT(verdict.rebalance_gain, 0.1);
  }
}

TEST(JitterOrPersistentTest, ASlowReplicaOfAPipelineGivesWorkAway) {
  const SlownessVerdict verdict =
      Verdict("lognormal:0.2;slow:rank=2,x=1.5", 3, {}, /*num_stages=*/4);

  EXPECT_EQ(verdict.remedy, Remedy::kRebalance);
  EXPECT_EQ(verdict.replica, 2);
  EXPECT_LT(verdict.counts[2], 14);
}

TEST(JitterOrPersistentTest, TheGainOfMovingIsExactWithoutJitter) {
  const SlownessVerdict verdict = Verdict("slow:rank=3,x=1.5", 1);

  EXPECT_NEAR(verdict.rebalance_gain, 0.368, 0.001);
  EXPECT_EQ(verdict.why,
            "replica 3 differs from the others for long; moving micro-batches "
            "gains 36.8 %");
}

TEST(JitterOrPersistentTest, NoReplicaIsGivenMoreThanThereIsRoomFor) {
  SlownessOptions options;
  options.max_microbatches = 17;

  const SlownessVerdict verdict = Verdict("slow:rank=2,x=3", 0, options);

  EXPECT_EQ(verdict.remedy, Remedy::kRebalance);
  EXPECT_EQ(verdict.counts, (std::vector<int>{17, 17, 9, 17, 17, 17, 17, 17}));
}

TEST(JitterOrPersistentTest, AQuietJobIsLeftAlone) {
  const SlownessVerdict verdict = Verdict("lognormal:0.02", 1);

  EXPECT_EQ(verdict.remedy, Remedy::kNone);
  EXPECT_THAT(verdict.why, HasSubstr("dropping would gain 0."));
}

TEST(JitterOrPersistentTest, ASmallPersistentShiftIsLeftAlone) {
  const SlownessVerdict verdict = Verdict("slow:rank=1,x=1.05", 1);

  EXPECT_EQ(verdict.remedy, Remedy::kNone);
  EXPECT_EQ(verdict.replica, -1);
}

TEST(JitterOrPersistentTest, OnlyWhatIsAllowedIsAdvised) {
  SlownessOptions only_drop, only_move;
  only_drop.may_rebalance = false;
  only_move.may_drop = false;

  EXPECT_EQ(Verdict("slow:rank=1,x=1.5", 1, only_drop).remedy, Remedy::kDrop);
  EXPECT_EQ(Verdict("lognormal:1", 1, only_move).remedy, Remedy::kNone);
}

TEST(JitterOrPersistentTest, OneSlowSpellIsNotPersistence) {
  const SimulatedJob job = {4, 1, 8, 1, [](int r, int64_t step, int, int) {
                              return r == 2 && step >= 12 && step < 32 ? 2 : 1;
                            }};

  const absl::StatusOr<SlownessVerdict> verdict =
      JitterOrPersistent(Observed(job, 40, std::vector<int>(4, 8)));

  ASSERT_TRUE(verdict.ok());
  EXPECT_EQ(verdict->replica, -1);
}

TEST(JitterOrPersistentTest, UnevenCountsOfEqualReplicasAreEvenedOut) {
  const SimulatedJob job = {4, 1, 8, 1,
                            [](int, int64_t, int, int) { return 1; }};

  const absl::StatusOr<SlownessVerdict> verdict =
      JitterOrPersistent(Observed(job, 40, {10, 10, 4, 8}));

  ASSERT_TRUE(verdict.ok());
  EXPECT_EQ(verdict->remedy, Remedy::kRebalance);
  EXPECT_THAT(verdict->counts, Each(8));
}

TEST(JitterOrPersistentTest, AFewStepsTellNothing) {
  const SimulatedJob job = {2, 1, 4, 1,
                            [](int, int64_t, int, int) { return 1; }};

  EXPECT_THAT(
      std::string(
          JitterOrPersistent(Observed(job, 3, {4, 4})).status().message()),
      HasSubstr("3 steps do not tell jitter from persistence"));
}

}  // namespace
}  // namespace deltapipe
