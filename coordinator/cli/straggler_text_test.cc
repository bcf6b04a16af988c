#include "coordinator/cli/straggler_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::JobMetrics Metrics() {
  v1::JobMetrics metrics;
  metrics.set_id("text-1");
  metrics.set_num_stages(2);
  metrics.set_num_replicas(3);
  v1::StragglerAnalysis* analysis = metrics.mutable_stragglers();
  analysis->set_step(80);
  analysis->set_step_seconds(1.5);
  analysis->set_ideal_seconds(1.2);
  for (const double score : {1.0, 1.0, 1.01, 1.02, 1.0, 1.25}) {
    analysis->add_scores(score);
  }
  analysis->set_best_fix_stage(1);
  analysis->set_best_fix_replica(2);
  analysis->set_best_fix_seconds(0.27);
  v1::Straggler* found = analysis->add_stragglers();
  found->set_stage(1);
  found->set_replica(2);
  found->set_worker_id("worker-6");
  found->set_cause("compute");
  found->set_slowdown(1.52);
  found->set_seconds_lost_per_step(0.27);
  found->set_since_step(60);
  return metrics;
}

void LeaveOut(v1::JobMetrics* metrics) {
  metrics->set_samples_dropped(1234);
  v1::StragglerReport* dropping = metrics->mutable_dropping();
  dropping->set_tau_seconds(0.412);
  dropping->set_predicted_drop_share(0.03);
  dropping->set_realised_drop_share(0.031);
  dropping->set_predicted_speedup(1.1);
  dropping->set_realised_speedup(1.08);
  dropping->set_state("as predicted");
}

TEST(StragglerTextTest, SummaryNamesWhatWasFound) {
  EXPECT_EQ(StragglerSummary(Metrics()),
            "STRAGGLER           CAUSE    SLOWDOWN  LOST/STEP  SINCE STEP  "
            "WORKER\n"
            "stage 1, replica 2  compute    1.52 x     0.27 s          61  "
            "worker-6\n");
}

TEST(StragglerTextTest, SummarySaysWhatLeavingOutBrings) {
  v1::JobMetrics metrics;
  LeaveOut(&metrics);

  EXPECT_EQ(
      StragglerSummary(metrics),
      "left out: 1,234 samples; no micro-batch begins after 0.412 s; 3.1 % "
      "of the work (predicted 3.0 %), 1.080 x as fast (predicted 1.100); "
      "as predicted\n");
}

TEST(StragglerTextTest, SummaryHasTheMicrobatchesOfEachReplica) {
  v1::JobMetrics metrics;
  metrics.mutable_dropping()->set_state("off: moving micro-batches 0.0 %");
  for (const int count : {18, 17, 11, 18}) {
    metrics.mutable_dropping()->add_counts(count);
  }

  EXPECT_EQ(StragglerSummary(metrics),
            "left out: 0 samples; off: moving micro-batches 0.0 %\n"
            "micro-batches by replica: 18, 17, 11, 18\n");
}

TEST(StragglerTextTest, SummaryOfNothingIsEmpty) {
  v1::JobMetrics metrics;
  metrics.mutable_stragglers()->add_scores(1);

  EXPECT_EQ(StragglerSummary(metrics), "");
}

TEST(StragglerTextTest, ReportHasAScoreForEachWorkerAndTheBestFix) {
  const std::string text = StragglerReport(Metrics());

  EXPECT_THAT(text, StartsWith("text-1, step 81: a step takes 1.5 s, and 1.2 s "
                               "were all workers alike (1.25 x)\n\n"));
  EXPECT_THAT(text, HasSubstr("STAGE  REPLICA 0  REPLICA 1  REPLICA 2\n"
                              "    0       1.00       1.00       1.01\n"
                              "    1       1.02       1.00       1.25\n"));
  EXPECT_THAT(text, HasSubstr("the best single fix: stage 1, replica 2 as fast "
                              "as the others saves 0.27 s a step (18 %)\n"));
}

TEST(StragglerTextTest, ReportWithoutStragglersSaysSo) {
  v1::JobMetrics metrics = Metrics();
  metrics.mutable_stragglers()->clear_stragglers();
  metrics.mutable_stragglers()->set_best_fix_seconds(0);
  LeaveOut(&metrics);

  EXPECT_THAT(StragglerReport(metrics),
              AllOf(HasSubstr("no straggler\nleft out: 1,234 samples"),
                    Not(HasSubstr("best single fix"))));
}

}  // namespace
}  // namespace deltapipe
