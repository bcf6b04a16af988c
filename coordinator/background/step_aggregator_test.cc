#include "coordinator/background/step_aggregator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

AggregatorShape TwoByTwo() {
  AggregatorShape shape;
  shape.num_stages = 2;
  shape.num_replicas = 2;
  shape.total_steps = 10;
  shape.batch_samples = 8;
  shape.worker_ids = {"worker-1", "worker-2", "worker-3", "worker-4"};
  return shape;
}

/// What a worker of rank 0..3 says: ranks 2 and 3 are the last stage.
v1::StepReport ReportOf(int rank, int64_t step) {
  v1::StepReport report;
  report.set_step(step);
  report.set_step_seconds(0.1 * (rank + 1));
  report.set_has_loss(rank >= 2);
  report.set_loss(rank);
  report.set_tokens(50);
  report.set_compressed(true);
  report.mutable_bytes()->set_activation_raw(1000 * step);
  report.mutable_bytes()->set_activation_wire(100 * step);
  report.mutable_bytes()->set_gradient_wire(10 * step);
  return report;
}

/// Adds the step for all ranks; returns the summary.
v1::StepSummary AddAll(StepAggregator* aggregator, int64_t step) {
  for (int rank = 0; rank < 3; ++rank) {
    const auto added = aggregator->Add(rank, ReportOf(rank, step));
    EXPECT_TRUE(added.ok() && !added->has_value());
  }
  const auto last = aggregator->Add(3, ReportOf(3, step));
  EXPECT_TRUE(last.ok() && last->has_value());
  return **last;
}

TEST(StepAggregatorTest, StepIsCompleteWhenAllRanksHaveReportedIt) {
  StepAggregator aggregator(TwoByTwo());

  const v1::StepSummary summary = AddAll(&aggregator, 1);

  EXPECT_EQ(summary.step(), 1);
  EXPECT_EQ(summary.total_steps(), 10);
  EXPECT_DOUBLE_EQ(summary.loss(), 2.5);  // mean over ranks 2 and 3
  EXPECT_DOUBLE_EQ(summary.step_seconds(), 0.4);
  EXPECT_NEAR(summary.tokens_per_second(), 100 / 0.4, 1e-3);
  EXPECT_TRUE(summary.compressed());
  EXPECT_EQ(summary.activation_raw_bytes(), 4000);
  EXPECT_EQ(summary.activation_wire_bytes(), 400);
  EXPECT_EQ(summary.gradient_wire_bytes(), 40);
  EXPECT_EQ(aggregator.num_complete(), 1);
}

// Differences between steps were off by what the fastest ranks had sent since.
TEST(StepAggregatorTest, BytesAreThoseUpToTheStepWhoeverIsAhead) {
  StepAggregator aggregator(TwoByTwo());
  for (int64_t step = 1; step <= 3; ++step) {
    for (int rank = 0; rank < 3; ++rank) {
      ASSERT_FALSE(aggregator.Add(rank, ReportOf(rank, step))->has_value());
    }
  }

  for (int64_t step = 1; step <= 3; ++step) {
    const auto summary = *aggregator.Add(3, ReportOf(3, step));
    ASSERT_TRUE(summary.has_value());
    EXPECT_EQ(summary->activation_wire_bytes(), 400 * step);
    EXPECT_EQ(summary->gradient_wire_bytes(), 40 * step);
  }
}

TEST(StepAggregatorTest, RanksMayBeStepsApart) {
  StepAggregator aggregator(TwoByTwo());
  for (int64_t step = 1; step <= 3; ++step) {
    for (int rank = 0; rank < 3; ++rank) {
      ASSERT_FALSE(aggregator.Add(rank, ReportOf(rank, step))->has_value());
    }
  }

  EXPECT_EQ((*aggregator.Add(3, ReportOf(3, 1)))->step(), 1);
  EXPECT_EQ((*aggregator.Add(3, ReportOf(3, 2)))->step(), 2);
}

TEST(StepAggregatorTest, OneSkippingRankMakesAStepSkippedAndItsSamplesDropped) {
  StepAggregator aggregator(TwoByTwo());
  AddAll(&aggregator, 1);
  for (int rank = 0; rank < 3; ++rank) {
    aggregator.Add(rank, ReportOf(rank, 2)).IgnoreError();  // not complete yet
  }
  v1::StepReport skipped = ReportOf(3, 2);
  skipped.set_skipped_steps(1);
  skipped.set_compressed(false);

  const v1::StepSummary summary = **aggregator.Add(3, skipped);

  EXPECT_TRUE(summary.skipped());
  EXPECT_FALSE(summary.compressed());
  EXPECT_EQ(aggregator.Result().samples_applied(), 8);
  EXPECT_EQ(aggregator.Result().samples_dropped(), 8);
}

TEST(StepAggregatorTest, DifferentReplicasAreNamedWithStageAndStep) {
  StepAggregator aggregator(TwoByTwo());
  absl::Status status;
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepReport report = ReportOf(rank, 1);
    report.set_weights_hash(rank < 2 ? 5 : 5 + static_cast<uint64_t>(rank));
    status = aggregator.Add(rank, report).status();
  }

  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("stage 1"), HasSubstr("step 2"), HasSubstr("worker-3"),
            HasSubstr("worker-4"), HasSubstr("0000000000000008")));
}

TEST(StepAggregatorTest,
     StagesMayHaveDifferentHashesAndUnverifiedOnesDoNotCount) {
  StepAggregator aggregator(TwoByTwo());
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepReport report = ReportOf(rank, 1);
    report.set_weights_hash(rank < 2 ? 5 : (rank == 2 ? 6 : 0));
    EXPECT_TRUE(aggregator.Add(rank, report).ok());
  }
}

TEST(StepAggregatorTest, RepeatedStepIsRefused) {
  StepAggregator aggregator(TwoByTwo());
  ASSERT_TRUE(aggregator.Add(1, ReportOf(1, 4)).ok());

  const auto again = aggregator.Add(1, ReportOf(1, 4));

  EXPECT_EQ(again.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(again.status().message()),
              HasSubstr("worker-2 (stage 0, replica 1) reported step 4 after "
                        "step 4"));
}

TEST(StepAggregatorTest, RankThatRunsAwayIsRefused) {
  StepAggregator aggregator(TwoByTwo());
  const int64_t most = StepAggregator::kMaxOpenReports;
  for (int64_t step = 0; step < most; ++step) {
    ASSERT_TRUE(aggregator.Add(0, ReportOf(0, step)).ok());
  }

  EXPECT_FALSE(aggregator.Add(0, ReportOf(0, most)).ok());
  EXPECT_TRUE(aggregator.Add(1, ReportOf(1, 0)).ok());
}

TEST(StepAggregatorTest, AReportMayCoverSeveralSteps) {
  StepAggregator aggregator(TwoByTwo());
  v1::StepSummary summary;
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepReport report = ReportOf(rank, 4);
    report.set_steps(5);
    report.set_tokens(250);
    report.set_step_seconds(2);
    report.set_skipped_steps(2);
    const auto added = aggregator.Add(rank, report);
    ASSERT_TRUE(added.ok());
    if (added->has_value()) summary = **added;
  }

  EXPECT_EQ(summary.step(), 4);
  EXPECT_DOUBLE_EQ(summary.step_seconds(), 0.4);
  EXPECT_NEAR(summary.tokens_per_second(), 500 / 2.0, 1e-3);
  EXPECT_TRUE(summary.skipped());
  const v1::JobResult result = aggregator.Result();
  EXPECT_EQ(result.steps(), 5);
  EXPECT_NEAR(result.tokens_per_second(), 500 / 2.0, 1e-3);
  EXPECT_EQ(result.samples_applied(), 3 * 8);
  EXPECT_EQ(result.samples_dropped(), 2 * 8);
}

TEST(StepAggregatorTest, ValidationIsTheMeanOverTokensOfTheLastStage) {
  StepAggregator aggregator(TwoByTwo());
  v1::ValidationReport report;
  report.set_step(7);
  report.set_loss(1.0);
  report.set_tokens(300);
  report.set_correct(90);
  EXPECT_FALSE(aggregator.AddValidation(0, report).has_value());
  EXPECT_FALSE(aggregator.AddValidation(2, report).has_value());
  report.set_loss(2.0);
  report.set_tokens(100);
  report.set_correct(50);

  const auto summary = aggregator.AddValidation(3, report);

  ASSERT_TRUE(summary.has_value());
  EXPECT_EQ(summary->step, 7);
  EXPECT_EQ(summary->tokens, 400);
  EXPECT_DOUBLE_EQ(summary->loss, 1.25);
  EXPECT_DOUBLE_EQ(aggregator.Result().validation_loss(), 1.25);
  EXPECT_DOUBLE_EQ(aggregator.Result().validation_accuracy(), 0.35);
}

TEST(StepAggregatorTest, AccuracyIsAbsentWhereAStageMakesNoPredictions) {
  StepAggregator aggregator(TwoByTwo());
  v1::ValidationReport report;
  report.set_loss(1.0);
  report.set_tokens(100);
  report.set_correct(50);
  aggregator.AddValidation(2, report);
  report.clear_correct();

  const auto summary = aggregator.AddValidation(3, report);

  ASSERT_TRUE(summary.has_value());
  EXPECT_FALSE(summary->accuracy.has_value());
  EXPECT_FALSE(aggregator.Result().has_validation_accuracy());
}

TEST(StepAggregatorTest, ResultSumsFinalBytesAndTakesTheMedianStep) {
  StepAggregator aggregator(TwoByTwo());
  for (int64_t step = 1; step <= 3; ++step) {
    for (int rank = 0; rank < 4; ++rank) {
      v1::StepReport report = ReportOf(rank, step);
      report.set_step_seconds(step == 2 ? 9.0 : 0.5);
      ASSERT_TRUE(aggregator.Add(rank, report).ok());
    }
  }
  v1::ByteCounters bytes;
  bytes.set_activation_wire(7000);
  bytes.set_other_wire(5);
  for (int rank = 0; rank < 4; ++rank) aggregator.SetBytes(rank, bytes);

  const v1::JobResult result = aggregator.Result();

  EXPECT_EQ(result.steps(), 3);
  EXPECT_EQ(result.activation_wire_bytes(), 28000);
  EXPECT_EQ(result.other_wire_bytes(), 20);
  EXPECT_DOUBLE_EQ(result.seconds_per_step(), 0.5);
  EXPECT_NEAR(result.tokens_per_second(), 300 / 10.0, 1e-3);
  EXPECT_EQ(result.samples_applied(), 24);
}

TEST(StepAggregatorTest, FaultsAreSummedOverTheRanksAsLastReported) {
  StepAggregator aggregator(TwoByTwo());
  v1::StepSummary summary;
  for (int64_t step = 1; step <= 2; ++step) {
    for (int rank = 0; rank < 4; ++rank) {
      v1::StepReport report = ReportOf(rank, step);
      report.mutable_faults()->set_frames_resent(10 * step);
      report.mutable_faults()->set_refused(rank);
      const auto added = aggregator.Add(rank, report);
      ASSERT_TRUE(added.ok()) << added.status();
      if (added->has_value()) summary = **added;
    }
  }

  EXPECT_EQ(summary.faults().frames_resent(), 80);
  EXPECT_EQ(summary.faults().refused(), 6);
  EXPECT_EQ(aggregator.Result().faults().frames_resent(), 80);
}

TEST(StepAggregatorTest, StepsMayCountFromZero) {
  StepAggregator aggregator(TwoByTwo());

  EXPECT_EQ(AddAll(&aggregator, 0).step(), 0);
  EXPECT_EQ(aggregator.Result().steps(), 1);
}

TEST(StepAggregatorTest, GoesBackAndCountsWhatWentThroughTheSocketsBefore) {
  StepAggregator aggregator(TwoByTwo());
  for (int64_t step = 0; step < 3; ++step) {
    for (int rank = 0; rank < 4; ++rank) {
      v1::StepReport report = ReportOf(rank, step);
      report.mutable_bytes()->set_gradient_wire(100 * (step + 1));
      ASSERT_TRUE(aggregator.Add(rank, report).ok());
    }
  }

  aggregator.GoBackTo(1, 0, {"worker-1", "worker-2", "worker-3", "worker-9"});
  EXPECT_EQ(aggregator.num_complete(), 1);
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepReport report = ReportOf(rank, 1);
    report.mutable_bytes()->set_gradient_wire(7);
    ASSERT_TRUE(aggregator.Add(rank, report).ok());
  }

  EXPECT_EQ(aggregator.num_complete(), 2);
  EXPECT_EQ(aggregator.Result().gradient_wire_bytes(), 4 * 300 + 4 * 7);
}

TEST(StepAggregatorTest, ASuccessorGoesOnWhereItWasSaved) {
  StepAggregator aggregator(TwoByTwo());
  StepAggregator whole(TwoByTwo());
  v1::ValidationReport validation;
  validation.set_step(5);
  validation.set_loss(2);
  validation.set_tokens(10);
  validation.set_correct(5);
  for (int rank = 0; rank < 4; ++rank) {
    ASSERT_TRUE(aggregator.Add(rank, ReportOf(rank, 0)).ok());
    ASSERT_TRUE(whole.Add(rank, ReportOf(rank, 0)).ok());
  }
  ASSERT_TRUE(aggregator.Add(0, ReportOf(0, 1)).ok());
  ASSERT_TRUE(whole.Add(0, ReportOf(0, 1)).ok());
  aggregator.AddValidation(2, validation);
  v1::JobProgress progress;
  aggregator.Save(&progress);

  StepAggregator successor(TwoByTwo());
  ASSERT_TRUE(successor.Load(progress).ok());

  for (int rank = 1; rank < 4; ++rank) {
    const auto expected = whole.Add(rank, ReportOf(rank, 1));
    const auto summary = successor.Add(rank, ReportOf(rank, 1));
    ASSERT_TRUE(summary.ok()) << summary.status();
    ASSERT_EQ(summary->has_value(), rank == 3);
    if (rank == 3) {
      EXPECT_EQ((*summary)->DebugString(), (*expected)->DebugString());
    }
  }
  EXPECT_EQ(successor.Result().DebugString(), whole.Result().DebugString());
  EXPECT_TRUE(successor.AddValidation(3, validation).has_value());
}

/// Of a job whose replicas may leave out work: what a rank's replica did in the
/// steps that end with `step`.
v1::StepReport ReportOfWork(int rank, int64_t step,
                            const std::vector<int>& microbatches) {
  v1::StepReport report = ReportOf(rank, step);
  report.set_steps(static_cast<int64_t>(microbatches.size()));
  for (const int executed : microbatches) report.add_microbatches(executed);
  return report;
}

/// One step in which replica r did microbatches[r].
void AddWork(StepAggregator* aggregator, int64_t step,
             const std::vector<int>& microbatches) {
  for (int rank = 0; rank < 4; ++rank) {
    const auto added = aggregator->Add(
        rank, ReportOfWork(rank, step, {microbatches[rank % 2]}));
    ASSERT_TRUE(added.ok()) << added.status();
  }
}

/// "3: 4 2" for each step.
std::vector<std::string> ExecutedIn(const StepAggregator& aggregator) {
  v1::Assignment assignment;
  aggregator.ListExecuted(assignment.mutable_executed());
  std::vector<std::string> steps;
  for (const v1::ExecutedStep& step : assignment.executed()) {
    std::string text = std::to_string(step.step()) + ":";
    for (const int executed : step.microbatches()) {
      text += " " + std::to_string(executed);
    }
    steps.push_back(text);
  }
  return steps;
}

TEST(StepAggregatorTest, LossIsTheMeanOverTheMicrobatchesThatWereDone) {
  StepAggregator aggregator(TwoByTwo());
  v1::StepSummary summary;
  for (int rank = 0; rank < 4; ++rank) {
    // Ranks 2 and 3 have losses 2 and 3; what counts is the last step.
    const auto added =
        aggregator.Add(rank, ReportOfWork(rank, 1, {4, rank % 2 == 0 ? 1 : 3}));
    ASSERT_TRUE(added.ok()) << added.status();
    if (added->has_value()) summary = **added;
  }

  EXPECT_DOUBLE_EQ(summary.loss(), (1 * 2.0 + 3 * 3.0) / 4);
}

TEST(StepAggregatorTest, ReplicaThatDidNothingHasNoSayInTheLoss) {
  StepAggregator aggregator(TwoByTwo());
  v1::StepSummary summary;
  for (int rank = 0; rank < 4; ++rank) {
    const auto added =
        aggregator.Add(rank, ReportOfWork(rank, 1, {rank % 2 == 0 ? 0 : 4}));
    ASSERT_TRUE(added.ok()) << added.status();
    if (added->has_value()) summary = **added;
  }

  EXPECT_DOUBLE_EQ(summary.loss(), 3);
}

TEST(StepAggregatorTest, SamplesLeftOutAreCountedOnceAndNotApplied) {
  StepAggregator aggregator(TwoByTwo());
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepReport report = ReportOfWork(rank, 1, {4, rank % 2 == 0 ? 4 : 1});
    // All stages of a replica leave out the same samples.
    report.set_dropped_samples(rank % 2 == 0 ? 0 : 3);
    ASSERT_TRUE(aggregator.Add(rank, report).ok());
  }

  EXPECT_EQ(aggregator.Result().samples_dropped(), 3);
  EXPECT_EQ(aggregator.Result().samples_applied(), 2 * 8 - 3);
}

TEST(StepAggregatorTest, RemembersWhatEachReplicaDidInEachStep) {
  StepAggregator aggregator(TwoByTwo());
  AddWork(&aggregator, 0, {4, 4});
  for (int rank = 0; rank < 4; ++rank) {
    const auto work =
        rank % 2 == 0 ? std::vector<int>{4, 3, 4} : std::vector<int>{2, 4, 0};
    ASSERT_TRUE(aggregator.Add(rank, ReportOfWork(rank, 3, work)).ok());
  }

  EXPECT_THAT(ExecutedIn(aggregator),
              ElementsAre("0: 4 4", "1: 4 2", "2: 3 4", "3: 4 0"));
}

TEST(StepAggregatorTest, JobThatLeavesNothingOutHasNothingToRemember) {
  StepAggregator aggregator(TwoByTwo());
  AddAll(&aggregator, 0);
  AddAll(&aggregator, 1);

  EXPECT_THAT(ExecutedIn(aggregator), IsEmpty());
}

TEST(StepAggregatorTest, ForgetsStepsThatAreNeverDoneAgain) {
  StepAggregator aggregator(TwoByTwo());
  for (int64_t step = 0; step < 5; ++step) AddWork(&aggregator, step, {4, 3});

  aggregator.ForgetExecutedBefore(3);
  EXPECT_THAT(ExecutedIn(aggregator), ElementsAre("3: 4 3", "4: 4 3"));
  aggregator.ForgetExecutedBefore(3);
  EXPECT_THAT(ExecutedIn(aggregator), SizeIs(2));
}

TEST(StepAggregatorTest, GoingBackKeepsWhatWasDoneAndRepeatsIt) {
  StepAggregator aggregator(TwoByTwo());
  AddWork(&aggregator, 0, {4, 4});
  AddWork(&aggregator, 1, {4, 2});
  AddWork(&aggregator, 2, {3, 4});

  aggregator.GoBackTo(1, 5, TwoByTwo().worker_ids);
  EXPECT_THAT(ExecutedIn(aggregator),
              ElementsAre("0: 4 4", "1: 4 2", "2: 3 4"));
  EXPECT_EQ(aggregator.Result().samples_dropped(), 5);
  EXPECT_EQ(aggregator.Result().samples_applied(), 8 - 5);

  AddWork(&aggregator, 1, {4, 2});
  AddWork(&aggregator, 2, {3, 4});
  AddWork(&aggregator, 3, {1, 1});
  EXPECT_THAT(ExecutedIn(aggregator),
              ElementsAre("0: 4 4", "1: 4 2", "2: 3 4", "3: 1 1"));
}

TEST(StepAggregatorTest, SuccessorKnowsWhatWasDoneAndLeftOut) {
  StepAggregator aggregator(TwoByTwo());
  AddWork(&aggregator, 0, {4, 4});
  for (int rank = 0; rank < 4; ++rank) {
    v1::StepReport report = ReportOfWork(rank, 1, {rank % 2 == 0 ? 4 : 2});
    report.set_dropped_samples(rank % 2 == 0 ? 0 : 2);
    ASSERT_TRUE(aggregator.Add(rank, report).ok());
  }
  v1::JobProgress progress;
  aggregator.Save(&progress);
  v1::JobProgress stored;
  ASSERT_TRUE(stored.ParseFromString(progress.SerializeAsString()));

  StepAggregator successor(TwoByTwo());
  ASSERT_TRUE(successor.Load(stored).ok());

  EXPECT_THAT(ExecutedIn(successor), ElementsAre("0: 4 4", "1: 4 2"));
  EXPECT_EQ(successor.Result().samples_dropped(), 2);
  EXPECT_EQ(successor.Result().samples_applied(), 2 * 8 - 2);
}

TEST(StepAggregatorTest, SuccessorKnowsTheCountsOfEachStep) {
  StepAggregator aggregator(TwoByTwo());
  for (int rank = 0; rank < 4; ++rank) {
    // Even, moved, and moved with two left out.
    v1::StepReport report = ReportOfWork(
        rank, 2,
        rank % 2 == 0 ? std::vector<int>{4, 6, 4} : std::vector<int>{4, 2, 2});
    for (const int planned : {4, 6, 6}) {
      report.add_planned_microbatches(rank % 2 == 0 ? planned : 8 - planned);
    }
    ASSERT_TRUE(aggregator.Add(rank, report).ok());
  }
  v1::JobProgress progress;
  aggregator.Save(&progress);

  StepAggregator successor(TwoByTwo());
  ASSERT_TRUE(successor.Load(progress).ok());

  v1::Assignment assignment;
  successor.ListExecuted(assignment.mutable_executed());
  ASSERT_EQ(assignment.executed_size(), 3);
  EXPECT_THAT(assignment.executed(0).planned(), IsEmpty()) << "the plan's";
  EXPECT_THAT(assignment.executed(1).planned(), ElementsAre(6, 2));
  EXPECT_THAT(assignment.executed(2).planned(), ElementsAre(6, 2));
  EXPECT_THAT(assignment.executed(2).microbatches(), ElementsAre(4, 2));
}

TEST(StepAggregatorTest, LoadingReplacesWhatItRemembered) {
  StepAggregator aggregator(TwoByTwo());
  AddWork(&aggregator, 7, {1, 1});
  StepAggregator other(TwoByTwo());
  AddWork(&other, 0, {4, 2});
  v1::JobProgress progress;
  other.Save(&progress);

  ASSERT_TRUE(aggregator.Load(progress).ok());

  EXPECT_THAT(ExecutedIn(aggregator), ElementsAre("0: 4 2"));
}

TEST(StepAggregatorTest, RemembersTheLastStepsOnly) {
  StepAggregator aggregator(TwoByTwo());
  const auto most = static_cast<int64_t>(StepAggregator::kMaxExecutedSteps);
  const int64_t kSteps = 8192;
  for (int64_t end = kSteps; end <= most + kSteps; end += kSteps) {
    for (int rank = 0; rank < 4; ++rank) {
      ASSERT_TRUE(aggregator
                      .Add(rank, ReportOfWork(rank, end - 1,
                                              std::vector<int>(kSteps, 4)))
                      .ok());
    }
  }

  const std::vector<std::string> executed = ExecutedIn(aggregator);
  ASSERT_THAT(executed, SizeIs(StepAggregator::kMaxExecutedSteps));
  EXPECT_EQ(executed.front(), std::to_string(kSteps) + ": 4 4");
  EXPECT_EQ(executed.back(), std::to_string(most + kSteps - 1) + ": 4 4");
}

TEST(StepAggregatorTest, ReplicasThatTellOfOtherStepsAreNotBelieved) {
  StepAggregator aggregator(TwoByTwo());
  for (int rank = 0; rank < 4; ++rank) {
    const auto work =
        rank % 2 == 0 ? std::vector<int>{4, 4} : std::vector<int>{4};
    ASSERT_TRUE(aggregator.Add(rank, ReportOfWork(rank, 1, work)).ok());
  }

  EXPECT_THAT(ExecutedIn(aggregator), IsEmpty());
}

}  // namespace
}  // namespace deltapipe
