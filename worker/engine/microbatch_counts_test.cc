#include "worker/engine/microbatch_counts.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Three replicas of 4 micro-batches, up to `most`; steps 5 and 6 are recorded,
/// the first of them with other counts.
v1::Assignment TheAssignment(int most) {
  v1::Assignment assignment;
  assignment.mutable_plan()->set_num_replicas(3);
  assignment.mutable_plan()->set_num_microbatches(4);
  assignment.mutable_plan()->set_max_microbatches(most);
  v1::ExecutedStep* step = assignment.add_executed();
  step->set_step(5);
  for (const int planned : {6, 4, 2}) step->add_planned(planned);
  assignment.add_executed()->set_step(6);
  return assignment;
}

TEST(MicrobatchCountsTest, WhatIsSetHoldsWhileWorkMayMove) {
  auto counts = MicrobatchCounts::Create(TheAssignment(6));
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_TRUE(counts->has_room());
  EXPECT_TRUE(counts->are_nominal());

  ASSERT_TRUE(counts->Set({5, 5, 2}).ok());

  EXPECT_FALSE(counts->BeginStep(1, /*may_move=*/true));
  EXPECT_THAT(counts->all(), ElementsAre(5, 5, 2));
  EXPECT_EQ(counts->of(2), 2);
  EXPECT_FALSE(counts->BeginStep(2, /*may_move=*/false));
  EXPECT_THAT(counts->all(), ElementsAre(4, 4, 4));
}

TEST(MicrobatchCountsTest, RecordedStepsHaveWhatTheyHadUnderAnyPolicy) {
  auto counts = MicrobatchCounts::Create(TheAssignment(6));
  ASSERT_TRUE(counts.ok()) << counts.status();
  ASSERT_TRUE(counts->Set({5, 5, 2}).ok());

  EXPECT_TRUE(counts->BeginStep(5, /*may_move=*/false));
  EXPECT_THAT(counts->all(), ElementsAre(6, 4, 2));
  EXPECT_TRUE(counts->BeginStep(6, /*may_move=*/true));
  EXPECT_TRUE(counts->are_nominal());
  EXPECT_FALSE(counts->BeginStep(7, /*may_move=*/true));
  EXPECT_TRUE(counts->are_nominal()) << "later steps keep the last ones";
}

TEST(MicrobatchCountsTest, RefusesWhatIsNoDivisionOfAStep) {
  auto counts = MicrobatchCounts::Create(TheAssignment(6));
  ASSERT_TRUE(counts.ok()) << counts.status();
  ASSERT_TRUE(counts->Set({5, 5, 2}).ok());

  for (const std::vector<int64_t>& wrong :
       {std::vector<int64_t>{6, 6}, {4, 4, 3}, {7, 4, 1}, {6, 6, 0}}) {
    const absl::Status refused = counts->Set(wrong);
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(
        std::string(refused.message()),
        HasSubstr("expected 3 numbers from 1 to 6 with the sum 12, got"));
  }
  EXPECT_THAT(counts->all(), ElementsAre(5, 5, 2));
  ASSERT_TRUE(counts->Set({}).ok());
  EXPECT_TRUE(counts->are_nominal()) << "a checkpoint without counts";
}

TEST(MicrobatchCountsTest, ARecordThatDoesNotFitThePlanIsNamed) {
  const auto counts = MicrobatchCounts::Create(TheAssignment(5));

  EXPECT_EQ(counts.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(counts.status().message()),
              HasSubstr("recorded of step 5"));
}

}  // namespace
}  // namespace deltapipe
