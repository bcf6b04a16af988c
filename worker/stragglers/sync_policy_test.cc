#include "worker/stragglers/sync_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "worker/stragglers/latency_model.h"
#include "worker/stragglers/step_simulator.h"

namespace deltapipe {
namespace {

using testing::Each;
using testing::Ge;
using testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Seconds =
    std::function<double(int replica, int64_t step, int microbatch)>;

Seconds Jitter(double factor, uint64_t seed) {
  absl::StatusOr<LatencyModel> model =
      LatencyModel::Parse("lognormal:" + std::to_string(factor), seed);
  EXPECT_TRUE(model.ok());
  return [model = *model](int r, int64_t step, int m) {
    return 1 + model.ExtraSeconds(r, step, m, 1);
  };
}

/// A data-parallel job whose replicas each have a policy of their own, and
/// whose observations arrive `lag` steps late.
class Job {
 public:
  Job(const std::string& policy, int num_replicas, int num_microbatches,
      SyncPolicyOptions options = {}, int lag = 1)
      : planned_(num_replicas, num_microbatches), lag_(lag) {
    for (int r = 0; r < num_replicas; ++r) {
      options.rank = r;
      absl::StatusOr<std::unique_ptr<SyncPolicy>> made =
          MakeSyncPolicy(policy, options);
      EXPECT_TRUE(made.ok()) << made.status();
      policies_.push_back(std::move(*made));
    }
  }

  /// Returns what was executed, by replica.
  std::vector<int> Step(const Seconds& seconds) {
    SimulatedJob job;
    job.seconds = [&](int r, int64_t step, int m, int) {
      return seconds(r, step, m);
    };
    StepObservation observation;
    observation.step = step_;
    observation.bucket = bucket_;
    double longest = 0;
    std::vector<int> executed;
    for (size_t r = 0; r < policies_.size(); ++r) {
      EXPECT_TRUE(
          policies_[r]->BeginStep({step_, bucket_, revision_, planned_}).ok());
      observation.replicas.push_back(
          SimulateReplica(job, step_, static_cast<int>(r), planned_[r],
                          [&](int m, double elapsed) {
                            return policies_[r]->Admit(m, elapsed);
                          }));
      const ReplicaObservation& replica = observation.replicas.back();
      executed.push_back(replica.executed);
      if (replica.executed > 0) {
        longest = std::max(longest, replica.done_seconds.back());
      }
    }
    for (ReplicaObservation& replica : observation.replicas) {
      replica.step_seconds = longest + rest_seconds_;
    }
    pending_.push_back(std::move(observation));
    if (static_cast<int>(pending_.size()) > lag_) {
      for (const auto& policy : policies_) {
        EXPECT_TRUE(policy->EndStep(pending_.front()).ok());
      }
      pending_.pop_front();
    }
    ++step_;
    executed_.push_back(executed);
    return executed;
  }
  void Steps(int count, const Seconds& seconds) {
    for (int i = 0; i < count; ++i) Step(seconds);
  }

  StragglerGauges gauges() const { return policies_[0]->gauges(); }
  SyncPolicy& policy(int rank = 0) { return *policies_[rank]; }
  /// Begins at `step`; what was executed before counts for MostDropped.
  void StartAfter(const Job& other, int64_t step) {
    step_ = step;
    executed_.assign(other.executed_.begin(), other.executed_.begin() + step);
  }
  void set_rest_seconds(double seconds) { rest_seconds_ = seconds; }
  void set_bucket(int64_t bucket) { bucket_ = bucket; }
  void set_revision(uint64_t revision) { revision_ = revision; }
  int64_t step() const { return step_; }
  const std::vector<std::vector<int>>& executed() const { return executed_; }

  /// Most micro-batches that any 100 steps in a row dropped.
  int MostDropped() const {
    int most = 0;
    for (size_t begin = 0; begin + 100 <= executed_.size(); ++begin) {
      int dropped = 0;
      for (size_t i = begin; i < begin + 100; ++i) {
        for (size_t r = 0; r < planned_.size(); ++r) {
          dropped += planned_[r] - executed_[i][r];
        }
      }
      most = std::max(most, dropped);
    }
    return most;
  }

 private:
  std::vector<std::unique_ptr<SyncPolicy>> policies_;
  std::vector<int> planned_;
  const int lag_;
  std::deque<StepObservation> pending_;
  int64_t step_ = 0;
  int64_t bucket_ = 0;
  double rest_seconds_ = 0.5;
  uint64_t revision_ = 0;
  std::vector<std::vector<int>> executed_;
};

TEST(SyncPolicyTest, NoneAndDetectAdmitEverything) {
  for (const char* name : {"none", "detect"}) {
    Job job(name, 3, 6);

    job.Steps(120, Jitter(3, 1));

    EXPECT_EQ(job.MostDropped(), 0);
    EXPECT_EQ(job.policy().name(), name);
    EXPECT_FALSE(job.policy().advice().is_advised);
    EXPECT_EQ(job.gauges().state, StragglerState::kOff);
  }
}

// 5 ignored and 40 measured, and one more until the last has arrived.
TEST(SyncPolicyTest, DecidesAfterFortyWholeSteps) {
  Job job("drop", 8, 12);

  job.Steps(45, Jitter(1, 2));
  EXPECT_EQ(job.gauges().state, StragglerState::kMeasuring);
  EXPECT_EQ(job.MostDropped(), 0);
  job.Step(Jitter(1, 2));

  EXPECT_EQ(job.gauges().state, StragglerState::kDropping);
  EXPECT_LT(job.gauges().tau_seconds, 20);
  EXPECT_GT(job.gauges().predicted_speedup, 1.03);
}

// However slow everything becomes after tau was chosen: every replica would
// like to drop all but one. Windows of 100 steps, seeds printed.
TEST(SyncPolicyTest, TheCapHoldsOverAnyHundredSteps) {
  std::mt19937 random(20250104);
  for (int round = 0; round < 12; ++round) {
    SyncPolicyOptions options;
    options.max_drop_share = 0.02 + 0.02 * (random() % 6);
    const int num_replicas = 2 + static_cast<int>(random() % 7);
    const int num_microbatches = 2 + static_cast<int>(random() % 15);
    const int lag = 1 + static_cast<int>(random() % 3);
    const uint64_t seed = random();
    SCOPED_TRACE(testing::Message() << "cap " << options.max_drop_share << ", "
                                    << num_replicas << " x " << num_microbatches
                                    << ", lag " << lag << ", seed " << seed);
    Job job("drop", num_replicas, num_microbatches, options, lag);

    job.Steps(60, Jitter(2, seed));
    const Seconds slow = [&](int r, int64_t step, int m) {
      return 30 * Jitter(2, seed)(r, step, m);
    };
    job.Steps(140, slow);
    job.Steps(200, Jitter(4, seed));

    EXPECT_LE(
        job.MostDropped(),
        options.max_drop_share * 100 * num_replicas * num_microbatches + 1e-6);
    for (const std::vector<int>& executed : job.executed()) {
      EXPECT_THAT(executed, Each(Ge(1)));
    }
  }
}

TEST(SyncPolicyTest, TheFirstMicrobatchIsAdmittedHoweverLate) {
  SyncPolicyOptions options;
  options.max_drop_share = 1;
  Job job("drop", 4, 8, options);
  job.Steps(50, Jitter(1, 4));
  ASSERT_EQ(job.gauges().state, StragglerState::kDropping);

  const std::vector<int> executed =
      job.Step([](int, int64_t, int) { return 1000; });

  EXPECT_THAT(executed, Each(1));
}

TEST(SyncPolicyTest, ARefusalHoldsForTheRestOfTheStep) {
  Job job("drop", 8, 12);
  job.Steps(46, Jitter(1, 2));
  ASSERT_EQ(job.gauges().state, StragglerState::kDropping);
  SyncPolicy& policy = job.policy();
  ASSERT_TRUE(
      policy.BeginStep({job.step(), 0, 0, std::vector<int>(8, 12)}).ok());
  const double tau = policy.gauges().tau_seconds;

  EXPECT_TRUE(policy.Admit(0, tau + 1));
  EXPECT_TRUE(policy.Admit(7, tau));
  EXPECT_FALSE(policy.Admit(8, tau + 1));
  EXPECT_FALSE(policy.Admit(9, tau - 1));
}

// A replica that is cut in more than 25 of the last 50 steps is named in the
// same call that observes the 26th.
TEST(SyncPolicyTest, FrequentCutsOfOneReplicaAreNeverUnadvised) {
  SyncPolicyOptions options;
  options.max_drop_share = 0.3;
  Job job("drop", 6, 10, options);
  const Seconds jitter = Jitter(1, 6);
  bool was_advised = false;
  for (int i = 0; i < 400; ++i) {
    job.Step([&](int r, int64_t step, int m) {
      return jitter(r, step, m) * (r == 4 && step > 60 ? 1.4 : 1);
    });
    // The newest step has not been observed.
    const int end = i;
    for (int r = 0; r < 6; ++r) {
      int cuts = 0;
      for (int k = std::max(0, end - 50); k < end; ++k) {
        cuts += job.executed()[k][r] < 10 ? 1 : 0;
      }
      if (cuts > 25) {
        EXPECT_TRUE(job.policy().advice().is_advised) << i;
      }
    }
    if (job.policy().advice().is_advised) {
      was_advised |= job.policy().advice().rank == 4;
    }
  }
  EXPECT_TRUE(was_advised);
}

TEST(SyncPolicyTest, ABucketHasItsOwnThreshold) {
  Job job("drop", 6, 8);
  const Seconds small = Jitter(1, 8);
  const Seconds large = [&](int r, int64_t step, int m) {
    return 3 * small(r, step, m);
  };
  for (int i = 0; i < 50; ++i) {
    job.set_bucket(0);
    job.Step(small);
    job.set_bucket(1);
    job.Step(large);
  }

  const double large_tau = job.gauges().tau_seconds;
  job.set_bucket(0);
  job.Step(small);
  const double small_tau = job.gauges().tau_seconds;

  ASSERT_LT(small_tau, kInfinity);
  EXPECT_GT(large_tau, 2 * small_tau);
  EXPECT_LT(large_tau, 4 * small_tau);
}

// The first steps after a change are slow for reasons of their own.
TEST(SyncPolicyTest, TheFirstFiveStepsAfterAChangeAreIgnored) {
  const Seconds jitter = Jitter(1, 9);
  Job plain("drop", 6, 8), disturbed("drop", 6, 8);
  plain.Steps(50, jitter);
  disturbed.Steps(
      5, [&](int r, int64_t step, int m) { return 100 * jitter(r, step, m); });
  disturbed.Steps(45, jitter);
  EXPECT_EQ(plain.gauges().tau_seconds, disturbed.gauges().tau_seconds);

  plain.set_revision(1);
  plain.Steps(45, jitter);
  EXPECT_EQ(plain.gauges().state, StragglerState::kMeasuring);
  EXPECT_EQ(plain.gauges().tau_seconds, kInfinity);
  plain.Step(jitter);

  EXPECT_EQ(plain.gauges().state, StragglerState::kDropping);
}

TEST(SyncPolicyTest, DecidesAnewEveryTwoHundredSteps) {
  Job job("drop", 8, 12);
  job.Steps(46, Jitter(1, 11));
  const double first = job.gauges().tau_seconds;
  EXPECT_EQ(job.gauges().num_decisions, 1);

  job.Steps(202, Jitter(1, 11));

  EXPECT_EQ(job.gauges().num_decisions, 2);
  EXPECT_EQ(job.gauges().num_mispredictions, 0);
  EXPECT_NE(job.gauges().tau_seconds, first);
  EXPECT_EQ(job.gauges().state, StragglerState::kDropping);
}

TEST(SyncPolicyTest, MeasuresAnewWhenItWasWrong) {
  const struct {
    double times;  // how much slower everything becomes
    const char* why;
  } cases[] = {{1.2, "was dropped"}, {0.7, "was dropped"}};
  for (const auto& one : cases) {
    SCOPED_TRACE(one.times);
    Job job("drop", 8, 12);
    const Seconds before = Jitter(1, 12);
    job.Steps(46, before);
    const double tau = job.gauges().tau_seconds;
    const Seconds after = [&](int r, int64_t step, int m) {
      return one.times * before(r, step, m);
    };

    int steps = 0;
    while (job.gauges().num_mispredictions == 0 && steps < 150) {
      job.Step(after);
      ++steps;
    }

    EXPECT_LT(steps, 115);
    EXPECT_EQ(job.gauges().state, StragglerState::kMeasuring);
    EXPECT_THAT(job.gauges().why, HasSubstr(one.why));
    job.Steps(60, after);
    EXPECT_EQ(job.gauges().state, StragglerState::kDropping);
    EXPECT_NEAR(job.gauges().tau_seconds, one.times * tau,
                0.15 * one.times * tau);
  }
}

TEST(SyncPolicyTest, ASpeedupThatDoesNotComeIsNoticed) {
  Job job("drop", 8, 12);
  job.Steps(46, Jitter(1, 15));
  ASSERT_EQ(job.gauges().state, StragglerState::kDropping);
  // As much is dropped as before, but all steps become longer.
  job.set_rest_seconds(4);

  job.Steps(115, Jitter(1, 15));

  EXPECT_EQ(job.gauges().num_mispredictions, 1);
  EXPECT_THAT(job.gauges().why, HasSubstr("the speed-up was"));
}

TEST(SyncPolicyTest, AReplayRepeatsWhatWasExecuted) {
  SyncPolicyOptions options;
  options.replay = {{2, {4, 0, 3}}, {3, {6, 6, 6}}, {4, {1, 5, 6}}};
  for (const char* name : {"none", "drop", "auto"}) {
    SCOPED_TRACE(name);
    Job job(name, 3, 6, options);

    job.Steps(8, Jitter(5, 1));

    EXPECT_THAT(job.executed()[1], Each(6));
    EXPECT_EQ(job.executed()[2], (std::vector<int>{4, 0, 3}));
    EXPECT_EQ(job.executed()[3], (std::vector<int>{6, 6, 6}));
    EXPECT_EQ(job.executed()[4], (std::vector<int>{1, 5, 6}));
    EXPECT_THAT(job.executed()[5], Each(6));
    EXPECT_EQ(job.gauges().num_dropped, 11 + 6);
  }
}

// After a recovery from step 90 a process knows nothing of earlier steps.
TEST(SyncPolicyTest, TheCapHoldsAcrossARecovery) {
  SyncPolicyOptions options;
  options.max_drop_share = 0.02;
  const Seconds jitter = Jitter(1, 21);
  Job first("drop", 8, 12, options);
  first.Steps(120, jitter);
  for (int step = 90; step < 120; ++step) {
    options.replay.push_back({step, first.executed()[step]});
  }
  Job second("drop", 8, 12, options);
  second.StartAfter(first, 90);

  second.Steps(300, [&](int r, int64_t step, int m) {
    return (step < 200 ? 1 : 5) * jitter(r, step, m);
  });

  for (int step = 90; step < 120; ++step) {
    EXPECT_EQ(second.executed()[step], first.executed()[step]);
  }
  EXPECT_GT(second.MostDropped(), 100);
  EXPECT_LE(second.MostDropped(), 0.02 * 100 * 8 * 12);
}

TEST(SyncPolicyTest, ObservationsMayArriveLate) {
  Job job("auto", 8, 12, {}, /*lag=*/4);

  job.Steps(300, Jitter(1, 33));

  EXPECT_EQ(job.gauges().state, StragglerState::kDropping);
  EXPECT_NEAR(job.gauges().realised_drop_share,
              job.gauges().predicted_drop_share, 0.02);
  EXPECT_GE(job.gauges().realised_speedup,
            0.9 * job.gauges().predicted_speedup);
  for (int r = 1; r < 8; ++r) {
    EXPECT_EQ(job.policy(r).gauges().tau_seconds, job.gauges().tau_seconds);
    EXPECT_EQ(job.policy(r).gauges().num_dropped, job.gauges().num_dropped);
  }
}

TEST(SyncPolicyTest, RefusesCallsThatCannotBe) {
  SyncPolicyOptions options;
  options.rank = 2;
  options.replay = {{7, {1, 1}}};
  auto policy = std::move(*MakeSyncPolicy("drop", options));

  EXPECT_THAT(std::string(policy->BeginStep({0, 0, 0, {4, 4}}).message()),
              HasSubstr("step 0 has 2 replicas, this is replica 2"));
  EXPECT_THAT(std::string(policy->BeginStep({7, 0, 0, {4, 4, 4}}).message()),
              HasSubstr("had 2 when it was first done"));
  EXPECT_THAT(std::string(policy->BeginStep({8, 0, 0, {4, 0, 4}}).message()),
              HasSubstr("step 8 plans 0 micro-batches for replica 1"));
  ASSERT_TRUE(policy->BeginStep({8, 0, 0, {4, 4, 4}}).ok());
  StepObservation observation;
  observation.step = 9;
  EXPECT_THAT(std::string(policy->EndStep(observation).message()),
              HasSubstr("step 9, which was not begun"));
}

TEST(SyncPolicyTest, ObservationsOfOtherReplicasAreRefused) {
  auto policy = std::move(*MakeSyncPolicy("drop", {}));
  ASSERT_TRUE(policy->BeginStep({8, 0, 0, {4, 4}}).ok());
  StepObservation observation;
  observation.step = 8;
  observation.replicas.resize(3);

  EXPECT_THAT(std::string(policy->EndStep(observation).message()),
              HasSubstr("observations of 3 replicas, expected 2"));

  ASSERT_TRUE(policy->BeginStep({9, 0, 0, {4, 4}}).ok());
  observation.step = 9;
  observation.replicas.resize(2);
  observation.replicas[0].planned = 4;
  observation.replicas[1].planned = 5;
  EXPECT_THAT(std::string(policy->EndStep(observation).message()),
              HasSubstr("replica 1 planned 5 micro-batches, expected 4"));
}

TEST(SyncPolicyTest, RefusesOptionsThatCannotBe) {
  const auto message = [](const std::string& name, SyncPolicyOptions options) {
    return std::string(MakeSyncPolicy(name, options).status().message());
  };
  SyncPolicyOptions options;
  EXPECT_THAT(message("skip", options),
              HasSubstr("unknown straggler policy 'skip'; known are none, "
                        "detect, drop, rebalance, auto"));
  for (const double cap : {0.0, -0.1, 1.1, std::nan("")}) {
    options.max_drop_share = cap;
    EXPECT_THAT(message("drop", options),
                HasSubstr("expected more than 0 and at most 1"));
  }
  options = {};
  options.measured_steps = 39;
  EXPECT_THAT(message("drop", options), HasSubstr("expected 40 or more"));
  options = {};
  options.retune_steps = 40;
  EXPECT_THAT(message("drop", options), HasSubstr("decisions less often"));
}

}  // namespace
}  // namespace deltapipe
