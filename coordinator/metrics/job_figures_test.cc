#include "coordinator/metrics/job_figures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "coordinator/background/metric_sink.h"

namespace deltapipe {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pair;

v1::Plan TwoStages() {
  v1::Plan plan;
  plan.set_num_stages(2);
  plan.set_num_replicas(1);
  plan.set_num_microbatches(4);
  plan.set_predicted_step_seconds(1);
  for (int stage = 0; stage < 2; ++stage) {
    plan.add_stages()->set_forward_seconds(0.05);
    plan.mutable_stages(stage)->set_backward_seconds(0.1);
  }
  return plan;
}

class JobFiguresTest : public ::testing::Test {
 protected:
  JobFiguresTest() {
    job_.set_id("text-1");
    job_.mutable_spec()->set_name("text");
    job_.mutable_spec()->mutable_train()->set_batch(8);
    job_.set_generation(7);
    job_.set_state(v1::JOB_STATE_RUNNING);
    figures_.Start(job_, TwoStages(), now_);
  }
  v1::StepReport Report(int64_t step) const {
    v1::StepReport report;
    report.set_generation(job_.generation());
    report.set_step(step);
    report.set_steps(1);
    report.set_tokens(100);
    report.set_step_seconds(1);
    report.set_compute_seconds(0.6);
    return report;
  }
  v1::StepReport LinkReport(int64_t step, int64_t raw, int64_t wire) const {
    v1::StepReport report = Report(step);
    v1::LinkReport* link = report.add_links();
    link->set_codec("int(8)");
    link->set_raw_bytes(raw);
    link->set_wire_bytes(wire);
    link->set_send_seconds(0.5 * static_cast<double>(step + 1));
    return report;
  }
  void Complete(int64_t step, double seconds = 1, double loss = 2) {
    v1::StepSummary summary;
    summary.set_step(step);
    summary.set_total_steps(10);
    summary.set_step_seconds(seconds);
    summary.set_loss(loss);
    now_ += static_cast<int64_t>(seconds * 1000);
    figures_.Complete(summary, now_);
  }
  void Restart(int64_t step) {
    job_.set_generation(job_.generation() + 1);
    job_.set_restarts(job_.restarts() + 1);
    job_.set_furthest_step(job_.step());
    job_.set_step(step);
    job_.set_checkpoint_step(step);
    figures_.Start(job_, TwoStages(), now_);
  }
  v1::JobMetrics Snapshot() const { return figures_.Snapshot(now_); }

  v1::Job job_;
  JobFigures figures_{job_};
  int64_t now_ = 1000000;
};

TEST_F(JobFiguresTest, TotalsDoNotFallWhenAGenerationCountsFromZero) {
  figures_.Report(0, 0, LinkReport(0, 400, 100), now_);
  figures_.Report(0, 0, LinkReport(1, 800, 200), now_);
  Restart(0);
  EXPECT_EQ(Snapshot().links(0).wire_bytes(), 200);

  figures_.Report(0, 0, LinkReport(0, 400, 90), now_);

  EXPECT_EQ(Snapshot().links(0).raw_bytes(), 1200);
  EXPECT_EQ(Snapshot().links(0).wire_bytes(), 290);
  EXPECT_DOUBLE_EQ(Snapshot().links(0).send_seconds(), 1.5);
}

TEST_F(JobFiguresTest, AReportOfAnEarlierGenerationIsIgnored) {
  const v1::StepReport late = LinkReport(5, 4000, 1000);
  Restart(0);
  figures_.Report(0, 0, LinkReport(0, 400, 100), now_);

  figures_.Report(0, 0, late, now_);

  EXPECT_EQ(Snapshot().links(0).wire_bytes(), 100);
  EXPECT_EQ(Snapshot().ranks(0).step(), 0);
}

TEST_F(JobFiguresTest, AReportThatIsSentAgainCountsOnce) {
  figures_.Report(0, 0, Report(0), now_);

  figures_.Report(0, 0, Report(0), now_);

  EXPECT_EQ(Snapshot().tokens(), 100);
  EXPECT_DOUBLE_EQ(Snapshot().ranks(0).total_step_seconds(), 1);
}

TEST_F(JobFiguresTest, ARankThatThePlanDoesNotHaveIsIgnored) {
  figures_.Report(2, 0, Report(0), now_);
  figures_.Report(0, -1, Report(0), now_);

  EXPECT_EQ(Snapshot().ranks_size(), 2);
  EXPECT_EQ(Snapshot().tokens(), 0);
}

TEST_F(JobFiguresTest, FiguresOfAReportOverSeveralStepsArePerStep) {
  v1::StepReport report = LinkReport(3, 400, 100);
  report.set_steps(4);
  report.set_step_seconds(2);
  report.set_compute_seconds(1);
  report.set_wait_seconds(0.5);
  figures_.Report(0, 0, report, now_);

  const v1::RankMetrics rank = Snapshot().ranks(0);
  EXPECT_DOUBLE_EQ(rank.step_seconds(), 0.5);
  EXPECT_DOUBLE_EQ(rank.compute_seconds(), 0.25);
  EXPECT_DOUBLE_EQ(rank.wait_seconds(), 0.125);
  EXPECT_DOUBLE_EQ(rank.idle_ratio(), 0.5);
  EXPECT_DOUBLE_EQ(rank.total_compute_seconds(), 1);
  EXPECT_DOUBLE_EQ(Snapshot().links(0).bytes_per_second(), 50);
}

TEST_F(JobFiguresTest, RatioAndRateAreOfTheLastReport) {
  figures_.Report(0, 0, LinkReport(0, 100, 100), now_);
  figures_.Report(0, 0, LinkReport(1, 500, 150), now_);

  const v1::LinkMetrics link = Snapshot().links(0);
  EXPECT_DOUBLE_EQ(link.compression_ratio(), 8);
  EXPECT_DOUBLE_EQ(link.bytes_per_second(), 50);
  EXPECT_DOUBLE_EQ(link.busy_ratio(), 0.5);
}

TEST_F(JobFiguresTest, ABoundaryNamedTwiceIsOneLink) {
  v1::StepReport report = LinkReport(0, 100, 50);
  *report.add_links() = report.links(0);
  report.mutable_links(1)->set_codec("int(4)");

  figures_.Report(0, 0, report, now_);

  ASSERT_EQ(Snapshot().links_size(), 1);
  EXPECT_EQ(Snapshot().links(0).wire_bytes(), 100);
  EXPECT_EQ(Snapshot().links(0).codec(), "int(4)");
}

TEST_F(JobFiguresTest, ValuesThatAreNotFiniteAddUpOverCodecsAndGenerations) {
  EXPECT_TRUE(figures_.Series(now_).not_finite.empty());
  v1::StepReport report = LinkReport(0, 100, 50);
  report.mutable_links(0)->set_not_finite(3);
  *report.add_links() = report.links(0);
  figures_.Report(0, 0, report, now_);
  // A worker counts from the start of its assignment.
  Restart(1);
  report = LinkReport(1, 100, 50);
  report.mutable_links(0)->set_not_finite(2);

  figures_.Report(0, 0, report, now_);

  EXPECT_THAT(figures_.Series(now_).not_finite,
              ElementsAre(Pair(std::make_tuple(0, false, 0), 8)));
}

TEST_F(JobFiguresTest, GoodputLosesTheTimeOfARestartAndOfStepsDoneAgain) {
  for (int step = 0; step < 4; ++step) Complete(step);
  job_.set_step(4);
  now_ += 10000;
  Restart(2);
  Complete(2);
  Complete(3);
  Complete(4);
  now_ += 0;

  const v1::JobMetrics metrics = Snapshot();
  EXPECT_DOUBLE_EQ(metrics.lost().restart(), 10);
  EXPECT_DOUBLE_EQ(metrics.lost().recompute(), 2);
  EXPECT_EQ(metrics.steps(), 7);
  EXPECT_EQ(metrics.samples(), 56);
  // 5 s of steps in 17 s.
  EXPECT_THAT(metrics.goodput_ratio(), DoubleNear(5.0 / 17, 1e-9));
}

TEST_F(JobFiguresTest, ARestartIsDetectedWaitedForAndReloaded) {
  Complete(0);
  now_ += 10000;
  figures_.GoBack(kWorkerLost, now_);
  now_ += 2000;
  figures_.GoBack(kConnection, now_);  // meanwhile
  now_ += 1000;
  job_.set_state(v1::JOB_STATE_PENDING);
  figures_.Change(job_, now_);
  now_ += 4000;
  job_.set_state(v1::JOB_STATE_STARTING);
  figures_.Change(job_, now_);
  now_ += 5000;
  Restart(0);

  const JobSeries series = figures_.Series(now_);
  EXPECT_THAT(series.restarts,
              ElementsAre(Pair("connection", 1), Pair("worker_lost", 1)));
  EXPECT_DOUBLE_EQ(series.metrics.lost().restart(), 22);
  EXPECT_DOUBLE_EQ(series.detect_seconds, 10);
  EXPECT_DOUBLE_EQ(series.reload_seconds, 5);
}

TEST_F(JobFiguresTest, ARestartThatWasMeantHasNothingToDetect) {
  job_.set_state(v1::JOB_STATE_STARTING);
  Restart(0);
  Complete(0);
  now_ += 3000;
  figures_.Change(job_, now_);  // STARTING once more
  now_ += 5000;
  Restart(0);

  const JobSeries series = figures_.Series(now_);
  EXPECT_DOUBLE_EQ(series.metrics.lost().restart(), 8);
  EXPECT_DOUBLE_EQ(series.detect_seconds, 0);
  EXPECT_DOUBLE_EQ(series.reload_seconds, 5);
}

TEST_F(JobFiguresTest, PhasesAddUpOverReportsAndGenerations) {
  v1::StepReport report = Report(0);
  report.set_reduce_seconds(0.5);
  report.mutable_phases()->set_forward(0.2);
  report.mutable_phases()->set_optimizer(0.125);
  report.mutable_phases()->set_encode(0.25);
  figures_.Report(0, 0, report, now_);
  figures_.Report(0, 0, report, now_);  // sent once more
  Restart(0);
  report.set_generation(job_.generation());
  // The update went on beside the computation.
  report.set_reduce_seconds(0);
  figures_.Report(0, 0, report, now_);

  const JobSeries series = figures_.Series(now_);
  ASSERT_EQ(series.phases.size(), 2u);
  EXPECT_DOUBLE_EQ(series.phases[0].phases.forward(), 0.4);
  EXPECT_DOUBLE_EQ(series.phases[0].phases.optimizer(), 0.25);
  EXPECT_DOUBLE_EQ(series.phases[0].phases.encode(), 0.5);
  EXPECT_DOUBLE_EQ(series.phases[0].reduce_seconds, 0.375);
  EXPECT_DOUBLE_EQ(series.phases[1].phases.forward(), 0);
}

TEST_F(JobFiguresTest, TheRoundTripIsTheLongerOfBothEnds) {
  v1::StepReport forward = LinkReport(0, 400, 100);
  forward.mutable_links(0)->set_round_trip_seconds(0.02);
  figures_.Report(0, 0, forward, now_);
  v1::StepReport backward = LinkReport(0, 400, 100);
  backward.mutable_links(0)->set_is_gradient(true);
  backward.mutable_links(0)->set_round_trip_seconds(0.03);
  figures_.Report(1, 0, backward, now_);

  EXPECT_THAT(figures_.Series(now_).round_trip_seconds,
              ElementsAre(Pair(Pair(0, 0), 0.03)));
}

TEST_F(JobFiguresTest, APauseCostsNoGoodput) {
  Complete(0);
  job_.set_state(v1::JOB_STATE_PAUSED);
  figures_.Change(job_, now_);
  now_ += 3600000;
  EXPECT_DOUBLE_EQ(Snapshot().goodput_ratio(), 1);
  job_.set_state(v1::JOB_STATE_RUNNING);
  job_.set_step(1);
  figures_.Start(job_, TwoStages(), now_);
  Complete(1);

  EXPECT_DOUBLE_EQ(Snapshot().goodput_ratio(), 1);
  EXPECT_DOUBLE_EQ(Snapshot().lost().restart(), 0);
}

TEST_F(JobFiguresTest, TheTimeLeftFollowsThePace) {
  Complete(0, 2);
  Complete(1, 4);

  EXPECT_DOUBLE_EQ(Snapshot().eta_seconds(), 24);
}

TEST_F(JobFiguresTest, AnEndedJobHasNoTimeLeftAndKeepsItsGoodput) {
  Complete(0);
  job_.set_state(v1::JOB_STATE_FAILED);
  figures_.Change(job_, now_);
  now_ += 1000000;

  EXPECT_DOUBLE_EQ(Snapshot().eta_seconds(), 0);
  EXPECT_DOUBLE_EQ(Snapshot().goodput_ratio(), 1);
}

TEST_F(JobFiguresTest, StepTimesFallIntoTheirBuckets) {
  Complete(0, 0.005);
  Complete(1, 0.006);
  Complete(2, 500);

  const v1::Histogram histogram = Snapshot().step_seconds();
  EXPECT_EQ(histogram.counts(0), 1);
  EXPECT_EQ(histogram.counts(1), 1);
  EXPECT_EQ(histogram.counts(histogram.counts_size() - 1), 1);
  EXPECT_EQ(histogram.counts_size(), histogram.bounds_size() + 1);
  EXPECT_DOUBLE_EQ(histogram.sum(), 500.011);
}

TEST_F(JobFiguresTest, LossesAreThinnedOutEvenly) {
  for (int step = 0; step < 4 * JobFigures::kMaxLosses; ++step) {
    Complete(step, 1, 1.0 + step);
  }

  const v1::JobMetrics metrics = Snapshot();
  ASSERT_LE(metrics.losses_size(), 2 * JobFigures::kMaxLosses);
  ASSERT_GE(metrics.losses_size(), JobFigures::kMaxLosses);
  const int64_t stride = metrics.losses(1).step() - metrics.losses(0).step();
  for (int i = 0; i < metrics.losses_size(); ++i) {
    EXPECT_EQ(metrics.losses(i).step(), i * stride);
  }
}

TEST_F(JobFiguresTest, LossesOfStepsThatAreDoneAgainAreReplaced) {
  Complete(0, 1, 5);
  Complete(1, 1, 4);
  Complete(2, 1, 3);
  job_.set_step(3);
  Restart(1);
  Complete(1, 1, 4.5);

  const v1::JobMetrics metrics = Snapshot();
  ASSERT_EQ(metrics.losses_size(), 2);
  EXPECT_DOUBLE_EQ(metrics.losses(1).loss(), 4.5);
}

TEST_F(JobFiguresTest, ALossThatIsNoNumberIsNotDrawn) {
  Complete(0, 1, std::nan(""));

  EXPECT_EQ(Snapshot().losses_size(), 0);
}

TEST_F(JobFiguresTest, DifferentWeightsOfAStageAreAVerifyFailure) {
  v1::Plan plan = TwoStages();
  plan.set_num_replicas(2);
  figures_.Start(job_, plan, now_);
  v1::StepReport report = Report(0);
  report.set_weights_hash(11);
  figures_.Report(0, 0, report, now_);
  figures_.Report(1, 0, report, now_);
  figures_.Report(1, 1, report, now_);
  EXPECT_EQ(Snapshot().verify_failures(), 0);

  report.set_weights_hash(12);
  figures_.Report(0, 1, report, now_);

  EXPECT_EQ(Snapshot().verify_failures(), 1);
}

TEST_F(JobFiguresTest, OneSlowWorkerIsFoundWithinTwentySteps) {
  for (int step = 0; step < 20; ++step) {
    v1::StepReport fast = Report(step);
    fast.set_compute_seconds(0.3);
    figures_.Report(0, 0, fast, now_);
    figures_.Report(1, 0, Report(step), now_);
  }

  EXPECT_DOUBLE_EQ(Snapshot().ranks(0).straggler_score(), 1);
  EXPECT_THAT(Snapshot().ranks(1).straggler_score(), DoubleNear(0.5, 1e-6));
}

TEST_F(JobFiguresTest, AWorkerThatHasFewerMicrobatchesIsNoFasterForThat) {
  for (int step = 0; step < 20; ++step) {
    v1::StepReport fast = Report(step);
    fast.set_compute_seconds(0.6);
    fast.add_microbatches(6);
    figures_.Report(0, 0, fast, now_);
    v1::StepReport slow = Report(step);
    slow.set_compute_seconds(0.4);
    slow.add_microbatches(2);
    figures_.Report(1, 0, slow, now_);
  }

  EXPECT_DOUBLE_EQ(Snapshot().ranks(0).straggler_score(), 1);
  EXPECT_THAT(Snapshot().ranks(1).straggler_score(), DoubleNear(0.5, 1e-6));
}

TEST_F(JobFiguresTest, KeepsTheNewestEventsAndEachOnce) {
  std::vector<v1::JobEvent> events(JobFigures::kMaxEvents + 10);
  for (size_t i = 0; i < events.size(); ++i) {
    events[i].set_sequence(static_cast<int64_t>(i) + 1);
  }
  figures_.AddEvents(events);
  figures_.AddEvents(events);

  const v1::JobMetrics metrics = Snapshot();
  ASSERT_EQ(metrics.events_size(), static_cast<int>(JobFigures::kMaxEvents));
  EXPECT_EQ(metrics.events(0).sequence(), 11);
  EXPECT_EQ(figures_.last_event_sequence(), 60);
}

TEST_F(JobFiguresTest, WorkersAreNamedByTheirRank) {
  for (int rank = 0; rank < 2; ++rank) {
    v1::JobMember* member = job_.add_members();
    member->set_rank(rank);
    member->set_worker_id(rank == 0 ? "worker-9" : "worker-4");
  }
  figures_.Change(job_, now_);

  EXPECT_EQ(Snapshot().ranks(0).worker_id(), "worker-9");
  EXPECT_EQ(Snapshot().ranks(1).worker_id(), "worker-4");
  EXPECT_DOUBLE_EQ(Snapshot().ranks(1).predicted_idle_ratio(), 0.4);
}

TEST_F(JobFiguresTest, MicrobatchesAreCountedByTheDelayOfTheirWeights) {
  v1::StepReport first = Report(0);
  first.add_microbatches_by_delay(4);
  v1::StepReport later = Report(1);
  later.add_microbatches_by_delay(0);
  later.add_microbatches_by_delay(8);
  figures_.Report(0, 0, first, now_);
  figures_.Report(0, 0, later, now_);

  EXPECT_THAT(Snapshot().ranks(0).microbatches_by_delay(),
              testing::ElementsAre(4, 8));
}

TEST_F(JobFiguresTest, SamplesLeftOutAreNotTrainedOnAndCountOnce) {
  v1::StepReport first = Report(0);
  first.add_microbatches(3);
  first.set_dropped_samples(2);
  v1::StepReport second = Report(1);
  second.add_microbatches(0);
  second.set_dropped_samples(8);
  figures_.Report(0, 0, first, now_);
  figures_.Report(1, 0, first, now_);
  figures_.Report(0, 0, second, now_);  // its step is not complete
  Complete(0);

  const v1::JobMetrics early = Snapshot();
  figures_.Report(1, 0, second, now_);
  Complete(1);
  const v1::JobMetrics late = Snapshot();

  // A counter may be early by a step; it never falls.
  EXPECT_LE(early.samples(), late.samples());
  EXPECT_LE(early.samples_dropped(), late.samples_dropped());
  EXPECT_EQ(late.samples_dropped(), 10);
  EXPECT_EQ(late.samples(), 2 * 8 - 10);
  EXPECT_EQ(late.ranks(0).dropped_microbatches(), 1 + 4);
  EXPECT_EQ(late.ranks(1).dropped_microbatches(), 1 + 4);
}

TEST_F(JobFiguresTest, WhatWasMovedIsNotLeftOut) {
  v1::StepReport report = Report(0);
  report.add_microbatches(2);
  report.add_planned_microbatches(2);
  figures_.Report(0, 0, report, now_);
  report = Report(1);
  report.add_microbatches(5);
  report.add_planned_microbatches(6);
  figures_.Report(0, 0, report, now_);

  EXPECT_EQ(Snapshot().ranks(0).dropped_microbatches(), 1);
  EXPECT_EQ(Snapshot().ranks(0).planned_microbatches(), 6);
}

TEST_F(JobFiguresTest, WhereNothingIsMovedThePlanSaysWhatIsToBeDone) {
  v1::StepReport report = Report(0);
  report.set_loss_scale(1024);

  figures_.Report(0, 0, report, now_);

  EXPECT_EQ(Snapshot().ranks(0).planned_microbatches(), 4);
  EXPECT_EQ(Snapshot().ranks(0).loss_scale(), 1024);
}

TEST_F(JobFiguresTest, WhatWasLeftOutOfStepsThatAreDoneAgainIsForgotten) {
  v1::StepReport report = Report(0);
  report.add_microbatches(3);
  report.set_dropped_samples(2);
  figures_.Report(0, 0, report, now_);
  Restart(0);

  figures_.Report(0, 0, Report(0), now_);
  Complete(0);

  EXPECT_EQ(Snapshot().samples_dropped(), 0);
  EXPECT_EQ(Snapshot().samples(), 8);
  EXPECT_EQ(Snapshot().ranks(0).dropped_microbatches(), 1);  // it did
}

TEST_F(JobFiguresTest, DroppingIsReplicaZerosAndGoesWithThePolicy) {
  v1::StepReport report = Report(0);
  report.mutable_stragglers()->set_tau_seconds(0.5);
  report.mutable_stragglers()->set_state("leaves out what is late");
  figures_.Report(0, 0, report, now_);

  EXPECT_DOUBLE_EQ(Snapshot().dropping().tau_seconds(), 0.5);
  figures_.Report(0, 0, Report(1), now_);
  EXPECT_FALSE(Snapshot().has_dropping());
}

TEST_F(JobFiguresTest, StragglersAreThoseOfTheGeneration) {
  v1::StragglerAnalysis analysis;
  analysis.set_step(80);
  analysis.add_scores(1.5);
  analysis.add_stragglers()->set_stage(1);
  figures_.SetStragglers(analysis);
  EXPECT_EQ(Snapshot().stragglers().stragglers_size(), 1);

  figures_.SetStragglers(v1::StragglerAnalysis());
  EXPECT_FALSE(Snapshot().has_stragglers());
  figures_.SetStragglers(analysis);
  Restart(0);
  EXPECT_FALSE(Snapshot().has_stragglers());
}

TEST_F(JobFiguresTest, SavedBytesAreSumsAndPeaksAreOfTheLastReport) {
  v1::StepReport report = Report(0);
  v1::SavedReport* saved = report.mutable_saved();
  saved->set_tensors(10);
  saved->set_raw_bytes(900);
  saved->set_unique_bytes(600);
  saved->set_packed_bytes(60);
  saved->set_passed_bytes(20);
  saved->set_metadata_bytes(5);
  saved->set_peak_bytes(300);
  saved->set_scratch_peak_bytes(30);
  saved->set_offloaded_peak_bytes(70);
  saved->add_errors()->set_operator_("gelu");
  saved->mutable_errors(0)->set_relative_error(0.25);
  saved->add_changes("step 1: gelu: 4 bits, was 2 bits");
  figures_.Report(0, 0, report, now_);
  report.set_step(1);
  saved->clear_errors();
  saved->set_peak_bytes(200);
  figures_.Report(0, 0, report, now_);
  figures_.Report(0, 0, report, now_);  // sent again
  Restart(0);
  report.set_generation(job_.generation());
  report.set_step(0);
  figures_.Report(0, 0, report, now_);

  const v1::SavedReport total = Snapshot().ranks(0).saved();
  EXPECT_EQ(total.tensors(), 30);
  EXPECT_EQ(total.raw_bytes(), 2700);
  EXPECT_EQ(total.unique_bytes(), 1800);
  EXPECT_EQ(total.packed_bytes(), 180);
  EXPECT_EQ(total.passed_bytes(), 60);
  EXPECT_EQ(total.metadata_bytes(), 15);
  EXPECT_EQ(total.peak_bytes(), 200);
  EXPECT_EQ(total.scratch_peak_bytes(), 30);
  EXPECT_EQ(total.offloaded_peak_bytes(), 70);
  ASSERT_EQ(total.errors_size(), 1);  // reports without a probe change nothing
  EXPECT_DOUBLE_EQ(total.errors(0).relative_error(), 0.25);
  EXPECT_EQ(total.changes_size(), 0);  // those are events
  EXPECT_FALSE(Snapshot().ranks(1).has_saved());
}

TEST_F(JobFiguresTest, TheLargestSavedErrorsAreKeptAndEachOperatorOnce) {
  v1::StepReport report = Report(0);
  for (int i = 0; i < 30; ++i) {
    v1::SavedError* error = report.mutable_saved()->add_errors();
    error->set_operator_("op" + std::to_string(i));
    error->set_relative_error(0.01 * i);
  }
  report.mutable_saved()->mutable_errors(0)->set_relative_error(std::nan(""));
  *report.mutable_saved()->add_errors() = report.saved().errors(29);
  figures_.Report(0, 0, report, now_);

  const v1::SavedReport total = Snapshot().ranks(0).saved();
  ASSERT_EQ(total.errors_size(), 20);
  EXPECT_EQ(total.errors(0).operator_(), "op0");  // no number: the worst
  EXPECT_EQ(total.errors(1).operator_(), "op29");
  EXPECT_EQ(total.errors(2).operator_(), "op28");
  EXPECT_EQ(total.errors(19).operator_(), "op11");
}

}  // namespace
}  // namespace deltapipe
