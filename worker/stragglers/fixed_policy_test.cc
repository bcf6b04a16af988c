#include "worker/stragglers/fixed_policy.h"

#include <deque>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

std::unique_ptr<SyncPolicy> Made(SyncPolicyOptions options) {
  options.tau_seconds = 3.5;
  auto policy = MakeSyncPolicy("drop", options);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

/// Micro-batches of one second each, then an observation of the same for all.
int Step(SyncPolicy* policy, int64_t step, int planned, double seconds = 1) {
  StepStart start;
  start.step = step;
  start.planned = {planned};
  EXPECT_TRUE(policy->BeginStep(start).ok());
  int executed = 0;
  while (executed < planned && policy->Admit(executed, executed * seconds)) {
    ++executed;
  }
  StepObservation observation;
  observation.step = step;
  observation.replicas.resize(1);
  observation.replicas[0].planned = planned;
  observation.replicas[0].executed = executed;
  EXPECT_TRUE(policy->EndStep(observation).ok());
  return executed;
}

TEST(FixedPolicyTest, BeginsNothingAfterTau) {
  SyncPolicyOptions options;
  options.max_drop_share = 1;
  const auto policy = Made(options);

  EXPECT_EQ(Step(policy.get(), 0, 8), 4);
  EXPECT_EQ(Step(policy.get(), 1, 3), 3);
  EXPECT_EQ(policy->gauges().num_dropped, 4);
}

TEST(FixedPolicyTest, TheFirstMicrobatchIsAlwaysDone) {
  SyncPolicyOptions options;
  options.max_drop_share = 1;
  const auto policy = Made(options);

  EXPECT_EQ(Step(policy.get(), 0, 8, /*seconds=*/100), 1);
}

TEST(FixedPolicyTest, NoHundredStepsDropMoreThanTheCap) {
  SyncPolicyOptions options;
  options.max_drop_share = 0.1;
  const auto policy = Made(options);

  std::deque<int> dropped;
  int in_window = 0;
  int most = 0;
  for (int64_t step = 0; step < 1000; ++step) {
    dropped.push_back(8 - Step(policy.get(), step, 8, /*seconds=*/10));
    in_window += dropped.back();
    if (dropped.size() > 100) {
      in_window -= dropped.front();
      dropped.pop_front();
    }
    most = std::max(most, in_window);
  }
  EXPECT_LE(most, 80);
  EXPECT_GE(most, 70) << "the budget is used";
}

TEST(FixedPolicyTest, AStepThatIsDoneAgainDoesWhatItDid) {
  SyncPolicyOptions options;
  options.replay = {{5, {2}}, {6, {8}}};
  const auto policy = Made(options);

  EXPECT_EQ(Step(policy.get(), 5, 8, /*seconds=*/0), 2);
  EXPECT_EQ(Step(policy.get(), 6, 8, /*seconds=*/100), 8);
}

TEST(FixedPolicyTest, TauMustBePositive) {
  SyncPolicyOptions options;
  options.tau_seconds = -1;
  EXPECT_EQ(MakeSyncPolicy("drop", options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
