#include "worker/engine/straggler_control.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kMost = 6;  // micro-batches of a replica

/// Of replica `replica` of two with 4 micro-batches each.
std::unique_ptr<StragglerControl> TheControl(int replica) {
  v1::Assignment assignment;
  assignment.mutable_plan()->set_num_replicas(2);
  assignment.mutable_plan()->set_num_microbatches(4);
  assignment.mutable_plan()->set_max_microbatches(kMost);
  assignment.mutable_spec()->mutable_stragglers()->set_tau("auto");
  assignment.mutable_spec()->mutable_stragglers()->set_max_drop_rate(0.1);
  assignment.mutable_spec()->mutable_stragglers()->set_retune_steps(200);
  auto control = StragglerControl::Create("rebalance", assignment, replica);
  EXPECT_TRUE(control.ok()) << control.status();
  return *std::move(control);
}

/// A step of `count` micro-batches that take so long each.
std::vector<double> Figures(int count, double seconds) {
  ReplicaObservation observation;
  observation.planned = count;
  observation.executed = count;
  for (int mb = 0; mb < count; ++mb) {
    observation.ready_seconds.push_back(mb * seconds);
    observation.done_seconds.push_back((mb + 1) * seconds);
  }
  observation.step_seconds = count * seconds;
  std::vector<double> figures(ObservationDoubles(kMost) + 2);
  EncodeObservation(observation,
                    absl::MakeSpan(figures).first(ObservationDoubles(kMost)));
  return figures;
}

void RunStep(int64_t step, const std::vector<int>& counts,
             StragglerControl* control) {
  ASSERT_TRUE(control->BeginStep(step, 1, counts).ok());
  for (int mb = 0; mb < 2; ++mb) {
    EXPECT_TRUE(control->Admit(mb));
    control->NoteDone(mb);
  }
  control->EndStep(2);
}

TEST(StragglerControlTest, WhatReplicaZeroAdvisesHoldsForAll) {
  const auto control = TheControl(1);
  RunStep(0, {4, 4}, control.get());
  EXPECT_THAT(control->figures(), SizeIs(ObservationDoubles(kMost) + 2));
  std::vector<double> from_zero = Figures(4, 0.1);
  from_zero[ObservationDoubles(kMost)] = 5;
  from_zero[ObservationDoubles(kMost) + 1] = 3;
  std::vector<double> from_one = Figures(4, 0.1);
  from_one[ObservationDoubles(kMost)] = 6;
  from_one[ObservationDoubles(kMost) + 1] = 2;

  ASSERT_TRUE(control->Observe({from_zero, from_one}).ok());

  EXPECT_THAT(control->next_counts(), ElementsAre(5, 3));
  RunStep(1, {5, 3}, control.get());
  ASSERT_TRUE(control->Observe({Figures(5, 0.1), Figures(3, 0.1)}).ok());
  EXPECT_THAT(control->next_counts(), IsEmpty());
}

// One step in which it is decided, one in which replica 0 says so.
TEST(StragglerControlTest, ASlowReplicaIsToldOfToTheOthersAStepLater) {
  const auto control = TheControl(0);
  int num_steps = 0;
  bool is_told = false;
  for (int64_t step = 0; step < 100 && !is_told; ++step) {
    RunStep(step, {4, 4}, control.get());
    std::vector<double> from_zero = Figures(4, 0.1);
    const std::vector<double> own = control->figures();
    std::copy(own.end() - 2, own.end(), from_zero.end() - 2);
    is_told = from_zero.back() > 0;

    ASSERT_TRUE(control->Observe({from_zero, Figures(4, 0.19)}).ok());

    EXPECT_EQ(!control->next_counts().empty(), is_told);
    ++num_steps;
  }

  EXPECT_EQ(num_steps, 5 + 40 + 1);
  EXPECT_THAT(control->next_counts(), ElementsAre(5, 3));
  EXPECT_EQ(control->advised_by(), 1);
  EXPECT_THAT(control->report().counts(), ElementsAre(4, 4));
}

}  // namespace
}  // namespace deltapipe
