#include "base/sample_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kPerStep = 21;

/// 47 steps an epoch.
LedgerQuestion Question(std::vector<LedgerRange> ranges,
                        int64_t num_steps_begun) {
  LedgerQuestion question;
  question.order.num_samples = 1000;
  question.order.num_slots = 7;
  question.order.microbatch = 3;
  question.order.seed = 5;
  question.ranges = std::move(ranges);
  question.num_steps_begun = num_steps_begun;
  return question;
}

/// A range that dropped `dropped` samples.
LedgerRange Range(uint64_t generation, int64_t first, int64_t end,
                  int64_t dropped = 0, int64_t dropped_before = -1) {
  return {generation, first,         end, (end - first) * kPerStep - dropped,
          dropped,    dropped_before};
}

TEST(SampleLedgerTest, AnUndisturbedJobAddsUp) {
  const LedgerAudit audit = AuditLedger(Question({Range(1, 0, 100, 4)}, 102));

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_THAT(audit.notes, IsEmpty());
  EXPECT_EQ(audit.num_steps, 100);
  EXPECT_EQ(audit.consumed, 102 * kPerStep);
  EXPECT_EQ(audit.applied, 100 * kPerStep - 4);
  EXPECT_EQ(audit.dropped, 4);
  EXPECT_EQ(audit.pending, 2 * kPerStep);
  EXPECT_EQ(audit.replaced, 0);
  EXPECT_EQ(audit.num_samples_checked, 100 * kPerStep);
}

TEST(SampleLedgerTest, AnEmptyLedgerAddsUp) {
  const LedgerAudit audit = AuditLedger(Question({}, 1));

  EXPECT_TRUE(audit.is_sound());
  EXPECT_EQ(audit.pending, kPerStep);
}

TEST(SampleLedgerTest, ALaterGenerationReplacesWhatItDoesAgain) {
  const LedgerAudit audit = AuditLedger(
      Question({Range(9, 50, 120), Range(4, 0, 63), Range(7, 60, 90)}, 120));

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_EQ(audit.num_steps, 120);
  EXPECT_EQ(audit.replaced, (3 + 30 + 10) * kPerStep);
  EXPECT_EQ(audit.applied, 120 * kPerStep);
}

TEST(SampleLedgerTest, GoingBackToTheBeginningReplacesAll) {
  const LedgerAudit audit =
      AuditLedger(Question({Range(1, 0, 63, 3), Range(2, 0, 5)}, 5));

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_THAT(audit.notes, IsEmpty());
  EXPECT_EQ(audit.dropped, 0);
  EXPECT_EQ(audit.applied, 5 * kPerStep);
}

TEST(SampleLedgerTest, AGenerationWithoutAStepReplacesToo) {
  const LedgerAudit audit =
      AuditLedger(Question({Range(1, 0, 63), Range(2, 50, 50)}, 50));

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_EQ(audit.num_steps, 50);
}

TEST(SampleLedgerTest, ACheckpointsCountSaysWhichDropsStay) {
  const LedgerAudit audit =
      AuditLedger(Question({Range(1, 0, 63, 10), Range(2, 50, 60, 1, 7)}, 60));

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_THAT(audit.notes, IsEmpty());
  EXPECT_EQ(audit.dropped, 8);
  EXPECT_EQ(audit.applied, 60 * kPerStep - 8);
}

TEST(SampleLedgerTest, WithoutThatCountTheAuditSaysSo) {
  const LedgerAudit audit =
      AuditLedger(Question({Range(1, 0, 63, 10), Range(2, 50, 60)}, 60));

  EXPECT_THAT(audit.findings, IsEmpty());
  EXPECT_THAT(audit.notes, ElementsAre(HasSubstr("is not recorded")));
  EXPECT_EQ(audit.applied + audit.dropped, 60 * kPerStep);
}

TEST(SampleLedgerTest, AnImpossibleCountOfACheckpointIsFound) {
  EXPECT_THAT(
      AuditLedger(Question({Range(1, 0, 63, 10), Range(2, 50, 60, 0, 11)}, 60))
          .findings,
      ElementsAre("generation 2 began at step 50 with 11 samples "
                  "dropped, expected 10"));
  EXPECT_THAT(
      AuditLedger(Question({Range(1, 0, 50, 10), Range(2, 50, 60, 0, 9)}, 60))
          .findings,
      ElementsAre(HasSubstr("with 9 samples dropped, expected 10")));
}

TEST(SampleLedgerTest, AGapIsFound) {
  const LedgerAudit audit =
      AuditLedger(Question({Range(1, 0, 50), Range(2, 52, 60)}, 60));

  EXPECT_THAT(
      audit.findings,
      ElementsAre("steps 50 to 51 is in no range before generation 2 begins",
                  AllOf(HasSubstr("= 1218 samples"),
                        HasSubstr("expected 1260 consumed"))));
}

TEST(SampleLedgerTest, ABeginningAfterStepZeroIsAGap) {
  EXPECT_THAT(AuditLedger(Question({Range(1, 1, 50)}, 50)).findings,
              Contains(HasSubstr("step 0 is in no range")));
}

TEST(SampleLedgerTest, StepsThatAGenerationDidTwiceAreFoundSampleBySample) {
  const LedgerAudit audit =
      AuditLedger(Question({Range(1, 0, 30), Range(1, 28, 40)}, 40));

  EXPECT_THAT(
      audit.findings,
      ElementsAre("generation 1 has done steps 28 to 29 twice",
                  HasSubstr("expected 840 consumed"),
                  AllOf(HasSubstr("42 samples were used twice in epoch 0"),
                        HasSubstr("generation 1 in steps 28 to 39"))));
}

TEST(SampleLedgerTest, CountsThatDoNotFillTheStepsAreFound) {
  LedgerRange range = Range(1, 0, 10);
  range.samples_applied -= 1;

  EXPECT_THAT(AuditLedger(Question({range}, 10)).findings,
              Contains("generation 1, steps 0 to 9: applied 209 + dropped 0 = "
                       "209 samples, expected 210"));
}

TEST(SampleLedgerTest, MoreStepsThanWereBegunAreFound) {
  EXPECT_THAT(AuditLedger(Question({Range(1, 0, 10)}, 9)).findings,
              ElementsAre("the ledger ends with step 9, but 9 steps were "
                          "begun"));
}

TEST(SampleLedgerTest, NonsenseIsRefused) {
  LedgerRange backwards = Range(1, 0, 10);
  backwards.end_step = -1;
  LedgerRange negative = Range(2, 0, 10);
  negative.samples_dropped = -1;
  LedgerRange huge = Range(3, 0, 10);
  huge.end_step = INT64_MAX;
  EXPECT_THAT(AuditLedger(Question({backwards, negative, huge}, 0)).findings,
              ElementsAre(HasSubstr("that is no range"),
                          HasSubstr("dropped -1 samples, expected 210 in all"),
                          HasSubstr("that is no range")));

  LedgerQuestion question = Question({Range(1, 0, 10)}, 10);
  question.order.num_slots = 0;
  EXPECT_THAT(AuditLedger(question).findings, ElementsAre(HasSubstr("none")));
  question.order.num_slots = 7;
  question.order.num_samples = 20;
  EXPECT_THAT(AuditLedger(question).findings,
              ElementsAre(HasSubstr("but one step takes 21")));
}

TEST(SampleLedgerTest, TooManySamplesAreSaidNotToBeLookedAt) {
  LedgerQuestion question = Question({Range(1, 0, 100)}, 100);
  question.max_samples = 100;

  const LedgerAudit audit = AuditLedger(question);

  EXPECT_TRUE(audit.is_sound());
  EXPECT_EQ(audit.num_samples_checked, 0);
  EXPECT_THAT(audit.notes, ElementsAre(HasSubstr("not looked at one by one")));
}

TEST(SampleLedgerTest, FindingsAreBounded) {
  std::vector<LedgerRange> ranges;
  for (int64_t i = 0; i < 1000; ++i) {
    ranges.push_back(Range(1, 2 * i + 1, 2 * i + 2));
  }

  EXPECT_EQ(AuditLedger(Question(ranges, 3000)).findings.size(), 100);
}

}  // namespace
}  // namespace deltapipe
