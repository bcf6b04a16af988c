#include "coordinator/cli/job_metrics_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::JobMetrics Metrics() {
  v1::JobMetrics metrics;
  metrics.set_id("text-1");
  metrics.set_state(v1::JOB_STATE_RUNNING);
  metrics.set_generation(3);
  metrics.set_restarts(1);
  metrics.set_eta_seconds(90);
  metrics.set_goodput_ratio(0.954);
  metrics.mutable_step()->set_step(339);
  metrics.mutable_step()->set_total_steps(1000);
  metrics.mutable_step()->set_loss(2.0125);
  metrics.mutable_step()->set_tokens_per_second(12345);
  metrics.mutable_checkpoint()->set_step(300);
  metrics.mutable_checkpoint()->set_time_millis(1000);
  v1::RankMetrics* rank = metrics.add_ranks();
  rank->set_stage(1);
  rank->set_worker_id("worker-2");
  rank->set_step(339);
  rank->set_report_time_millis(1);
  rank->set_step_seconds(0.052);
  rank->set_compute_seconds(0.03);
  rank->set_wait_seconds(0.015);
  rank->set_reduce_seconds(0.005);
  rank->set_idle_ratio(0.42);
  rank->set_straggler_score(0.9);
  rank->set_memory_bytes(600000);
  v1::LinkMetrics* link = metrics.add_links();
  link->set_is_gradient(true);
  link->set_codec("int(8)");
  link->set_raw_bytes(4000000);
  link->set_wire_bytes(1000000);
  link->set_compression_ratio(4);
  link->set_bytes_per_second(125000);
  link->set_busy_ratio(0.5);
  return metrics;
}

TEST(JobMetricsTableTest, BeginsWithTheJob) {
  EXPECT_THAT(JobMetricsTables(Metrics(), 13000),
              ::testing::StartsWith(
                  "text-1: RUNNING; step 340 of 1000; loss 2.0125; "
                  "12345 tokens/s; ETA 1:30; goodput 95 %; generation 3; "
                  "1 restart; checkpoint of step 300, 0:12 old\n\n"));
}

TEST(JobMetricsTableTest, HasARowForEachWorkerAndLink) {
  const std::string text = JobMetricsTables(Metrics(), 13000);

  EXPECT_THAT(text, HasSubstr("STAGE  REPLICA  WORKER    STEP   TIME  COMPUTE"
                              "   WAIT  REDUCE  IDLE  PACE  MEMORY\n"
                              "    1        0  worker-2   340  52 ms    30 ms"
                              "  15 ms    5 ms  42 %  0.90  600 kB\n"));
  EXPECT_THAT(
      text, HasSubstr("BOUNDARY  DIRECTION  REPLICA  CODEC    RAW  WIRE  RATIO"
                      "      RATE  BUSY  ERROR\n"
                      "0-1       backward         0  int(8)  4 MB  1 MB    4.0"
                      "  125 kB/s  50 %      -\n"));
}

TEST(JobMetricsTableTest, EndsWithTheStragglers) {
  v1::JobMetrics metrics = Metrics();
  EXPECT_THAT(JobMetricsTables(metrics, 0), Not(HasSubstr("STRAGGLER")));

  metrics.mutable_stragglers()->add_stragglers()->set_cause("input");
  EXPECT_THAT(JobMetricsTables(metrics, 0),
              HasSubstr("\n\nSTRAGGLER           CAUSE"));
}

TEST(JobMetricsTableTest, LeavesOutWhatIsNotKnownYet) {
  v1::JobMetrics metrics;
  metrics.set_id("text-1");
  metrics.set_state(v1::JOB_STATE_RUNNING);
  metrics.add_ranks();

  const std::string text = JobMetricsTables(metrics, 0);

  EXPECT_THAT(text, ::testing::StartsWith("text-1: RUNNING; generation 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("BOUNDARY")));
}

TEST(JobMetricsTableTest, HasSavedActivationsWhereTheyArePacked) {
  v1::JobMetrics metrics = Metrics();
  EXPECT_THAT(JobMetricsTables(metrics, 0), Not(HasSubstr("SAVED")));

  metrics.mutable_ranks(0)->mutable_saved()->set_unique_bytes(1'000'000);
  metrics.mutable_ranks(0)->mutable_saved()->set_packed_bytes(250'000);
  EXPECT_THAT(JobMetricsTables(metrics, 0),
              HasSubstr("\n\nSTAGE  REPLICA  SAVED    KEPT  RATIO  PEAK"
                        "  SCRATCH  GRADIENT ERROR\n"
                        "    1        0   1 MB  250 kB   0.25   0 B"
                        "      0 B  -\n"));
}

}  // namespace
}  // namespace deltapipe
