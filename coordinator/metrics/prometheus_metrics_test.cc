#include "coordinator/metrics/prometheus_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "coordinator/metrics/live_figures.h"
#include "coordinator/metrics/testing/demo_job.h"

namespace deltapipe {
namespace {

using std::chrono::minutes;
using ::testing::HasSubstr;
using ::testing::Not;

/// All that a worker and its links have unless something special is on.
JobSeries PlayedSeries(int stages, int replicas, int steps = 3,
                       bool packs = false) {
  FakeClock clock;
  clock.Advance(minutes(10));
  LiveFigures figures(&clock);
  DemoJob job("text-1", stages, replicas, &figures);
  if (packs) job.PackActivations();
  job.Start();
  for (int i = 0; i < steps; ++i) job.Step(0.5);
  job.Checkpoint();
  return figures.Series(minutes(5)).at(0);
}

v1::JobMetrics Played(int stages, int replicas, int steps = 3,
                      bool packs = false) {
  return PlayedSeries(stages, replicas, steps, packs).metrics;
}

int NumSeries(const std::string& text) {
  int count = 0;
  for (const auto& line : absl::StrSplit(text, '\n')) {
    if (!line.empty() && line[0] != '#') ++count;
  }
  return count;
}

TEST(PrometheusMetricsTest, WritesTypeHelpAndSamples) {
  const std::string text = PrometheusText({Played(2, 1)}, ClusterFigures());

  EXPECT_THAT(text, HasSubstr("# TYPE deltapipe_steps_total counter\n"
                              "deltapipe_steps_total{job_id=\"text-1\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("# HELP deltapipe_loss "));
  EXPECT_THAT(
      text,
      HasSubstr("deltapipe_link_wire_bytes_total{job_id=\"text-1\",boundary="
                "\"0\",direction=\"backward\",replica=\"0\"} 3180000\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_step_seconds_bucket{job_id=\"text-1\","
                              "le=\"0.5\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_step_seconds_bucket{job_id=\"text-1\","
                              "le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_job_state{job_id=\"text-1\",state="
                              "\"RUNNING\"} 1\n"));
}

TEST(PrometheusMetricsTest, WhatAUserNamesIsEscaped) {
  v1::JobMetrics job;
  job.set_id("a\"b\\c\nd");

  EXPECT_THAT(PrometheusText({job}, ClusterFigures()),
              HasSubstr("deltapipe_steps_total{job_id=\"a\\\"b\\\\c\\nd\"} 0"));
}

TEST(PrometheusMetricsTest, FiguresThatAreNotKnownAreAbsent) {
  v1::JobMetrics job;
  job.set_id("text-1");
  job.add_ranks();

  const std::string text = PrometheusText({job}, ClusterFigures());

  EXPECT_THAT(text, Not(HasSubstr("deltapipe_loss{")));
  EXPECT_THAT(text, Not(HasSubstr("deltapipe_validation_loss")));
  EXPECT_THAT(text, Not(HasSubstr("deltapipe_checkpoint_bytes")));
  EXPECT_THAT(text, Not(HasSubstr("stage=")));
}

TEST(PrometheusMetricsTest, ALossThatIsNoNumberIsWritten) {
  v1::JobMetrics job = Played(1, 1);
  job.mutable_step()->set_loss(std::nan(""));

  EXPECT_THAT(PrometheusText({job}, ClusterFigures()),
              HasSubstr("deltapipe_loss{job_id=\"text-1\"} Nan\n"));
}

TEST(PrometheusMetricsTest, StragglersAndWhatIsLeftOut) {
  v1::JobMetrics job = Played(2, 1);
  job.set_samples_dropped(7);
  job.mutable_ranks(0)->set_dropped_microbatches(3);
  job.mutable_ranks(0)->clear_microbatches_by_delay();
  job.mutable_ranks(0)->add_microbatches_by_delay(8);
  job.mutable_ranks(0)->add_microbatches_by_delay(72);
  job.mutable_ranks(1)->set_planned_microbatches(5);
  job.mutable_dropping()->set_tau_seconds(0.5);
  job.mutable_dropping()->set_predicted_drop_share(0.25);
  job.mutable_dropping()->set_realised_speedup(1.5);
  job.mutable_stragglers()->set_step_seconds(3);
  job.mutable_stragglers()->set_ideal_seconds(2);
  v1::Straggler* found = job.mutable_stragglers()->add_stragglers();
  found->set_stage(1);
  found->set_replica(-1);
  found->set_cause("stage imbalance");
  found->set_seconds_lost_per_step(0.75);

  const std::string text = PrometheusText({job}, ClusterFigures());

  EXPECT_THAT(text, HasSubstr("deltapipe_samples_dropped_total{job_id=\"text-1"
                              "\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_dropped_microbatches_total{job_id=\""
                              "text-1\",stage=\"0\",replica=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_microbatches_total{job_id=\"text-1\","
                              "stage=\"0\",replica=\"0\",delay=\"1\"} 72\n"));
  EXPECT_THAT(text,
              HasSubstr("deltapipe_planned_microbatches{job_id=\"text-1\","
                        "stage=\"1\",replica=\"0\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_drop_threshold_seconds{job_id=\"text-1"
                              "\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_drop_ratio{job_id=\"text-1\",kind=\""
                              "predicted\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_drop_speedup_ratio{job_id=\"text-1\","
                              "kind=\"realised\"} 1.5\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_straggler_slowdown_ratio{job_id=\""
                              "text-1\"} 1.5\n"));
  EXPECT_THAT(text,
              HasSubstr("deltapipe_straggler_lost_seconds{job_id=\"text-1\","
                        "stage=\"1\",replica=\"-1\",cause=\"stage imbalance"
                        "\"} 0.75\n"));
}

TEST(PrometheusMetricsTest, LossScaleOfJobsThatHaveOne) {
  v1::JobMetrics job = Played(1, 1);
  EXPECT_THAT(PrometheusText({job}, ClusterFigures()),
              Not(HasSubstr("deltapipe_loss_scale")));

  job.mutable_ranks(0)->set_loss_scale(65536);

  EXPECT_THAT(PrometheusText({job}, ClusterFigures()),
              HasSubstr("deltapipe_loss_scale{job_id=\"text-1\",stage=\"0\","
                        "replica=\"0\"} 65536\n"));
}

TEST(PrometheusMetricsTest, JobThatIsNotSampledHasNoStragglerSeries) {
  const std::string text = PrometheusText({Played(2, 1)}, ClusterFigures());

  EXPECT_THAT(text, Not(HasSubstr("deltapipe_straggler_slowdown_ratio")));
  EXPECT_THAT(text, Not(HasSubstr("deltapipe_straggler_lost_seconds")));
  EXPECT_THAT(text, Not(HasSubstr("deltapipe_drop_")));
}

TEST(PrometheusMetricsTest, LinksThatSentNoNumbers) {
  const v1::JobMetrics job = Played(2, 1);
  EXPECT_THAT(PrometheusText({job}, ClusterFigures()),
              Not(HasSubstr("deltapipe_link_not_finite_total{")));

  JobSeries series(job);
  series.not_finite[{0, true, 0}] = 12;

  EXPECT_THAT(
      PrometheusText({series}, ClusterFigures()),
      HasSubstr("deltapipe_link_not_finite_total{job_id=\"text-1\",boundary="
                "\"0\",direction=\"backward\",replica=\"0\"} 12\n"));
}

TEST(PrometheusMetricsTest, A128RankJobHasFewerThan5000Series) {
  ClusterFigures cluster;
  for (int i = 0; i < 40; ++i) cluster.rpcs[{absl::StrCat("M", i), "OK"}] = 1;
  for (const int replicas : {1, 2, 8, 64, 128}) {
    const int stages = 128 / replicas;
    JobSeries series = PlayedSeries(stages, replicas);
    ASSERT_EQ(series.phases.size(), 128u);
    for (int boundary = 0; boundary + 1 < stages; ++boundary) {
      series.rate_limit_bytes_per_second[boundary] = 1e6;
    }

    const int count = NumSeries(PrometheusText({series}, cluster));

    EXPECT_LT(count, 5000) << replicas << " replicas";
    EXPECT_LT(count, 128 * kMaxSeriesPerRank + 110);
  }
}

TEST(PrometheusMetricsTest, PhasesOfAWorkerAreSumsOverItsSteps) {
  const std::string text =
      PrometheusText({PlayedSeries(2, 1, /*steps=*/2)}, ClusterFigures());

  const auto phase = [](const char* name) {
    return absl::StrCat(
        "deltapipe_phase_seconds_total{job_id=\"text-1\",stage=\"0"
        "\",replica=\"0\",phase=\"",
        name, "\"} ");
  };
  // Of steps of 0.5 s with 0.2 s of computation, of which 0.02 * 0.5 s of the
  // 0.12 * 0.5 s for gradients update weights.
  EXPECT_THAT(text, HasSubstr(phase("forward") + "0.13333"));
  EXPECT_THAT(text, HasSubstr(phase("backward") + "0.26666"));
  EXPECT_THAT(text, HasSubstr(phase("optimizer") + "0.02\n"));
  EXPECT_THAT(text, HasSubstr(phase("wait_recv")));
  EXPECT_THAT(text, HasSubstr(phase("wait_send") + "0.01\n"));
  EXPECT_THAT(text, HasSubstr(phase("compress") + "0.03\n"));
  EXPECT_THAT(text, HasSubstr(phase("decompress") + "0.02\n"));
  EXPECT_THAT(text, HasSubstr(phase("data") + "0.005\n"));
  EXPECT_THAT(text, HasSubstr(phase("reduce") + "0.09999"));
}

TEST(PrometheusMetricsTest, LinksHaveBitsARoundTripAndTheirLimit) {
  JobSeries series = PlayedSeries(3, 1);
  series.rate_limit_bytes_per_second[1] = 12.5e6;

  const std::string text = PrometheusText({series}, ClusterFigures());

  // 560,000 of 4,199,000 bytes of fp32 went over the wire.
  EXPECT_THAT(text, HasSubstr("deltapipe_link_bits{job_id=\"text-1\",boundary="
                              "\"0\",direction=\"forward\",replica=\"0\","
                              "codec=\"delta(int(4),first=cast(bf16))\"} "
                              "4.267"));
  EXPECT_THAT(text, HasSubstr("deltapipe_link_round_trip_seconds{job_id=\"text"
                              "-1\",boundary=\"0\",replica=\"0\"} 0.0004\n"));
  EXPECT_THAT(text,
              HasSubstr("deltapipe_link_rate_limit_bytes_per_second{job_id=\""
                        "text-1\",boundary=\"1\"} 12500000\n"));
  EXPECT_THAT(text, Not(HasSubstr("deltapipe_link_rate_limit_bytes_per_second{"
                                  "job_id=\"text-1\",boundary=\"0\"")));
}

TEST(PrometheusMetricsTest, RestartsAndTheirTimeByCause) {
  JobSeries series = PlayedSeries(1, 1);
  series.metrics.set_restarts(5);
  series.restarts = {{"worker_lost", 2}, {"connection", 1}};
  series.metrics.mutable_lost()->set_restart(20);
  series.detect_seconds = 10;
  series.reload_seconds = 7;

  const std::string text = PrometheusText({series}, ClusterFigures());

  const auto restarts = [](const char* cause) {
    return absl::StrCat("deltapipe_restarts_total{job_id=\"text-1\",cause=\"",
                        cause, "\"} ");
  };
  EXPECT_THAT(text, HasSubstr(restarts("worker_lost") + "2\n"));
  EXPECT_THAT(text, HasSubstr(restarts("connection") + "1\n"));
  EXPECT_THAT(text, HasSubstr(restarts("worker_left") + "0\n"));
  EXPECT_THAT(text, HasSubstr(restarts("earlier") + "2\n"));
  const auto lost = [](const char* cause) {
    return absl::StrCat(
        "deltapipe_lost_seconds_total{job_id=\"text-1\",cause="
        "\"",
        cause, "\"} ");
  };
  EXPECT_THAT(text, HasSubstr(lost("detect") + "10\n"));
  EXPECT_THAT(text, HasSubstr(lost("restart") + "3\n"));
  EXPECT_THAT(text, HasSubstr(lost("reload") + "7\n"));
}

TEST(PrometheusMetricsTest, TheLowestTuningRevisionIsTheJobs) {
  JobSeries series = PlayedSeries(2, 1);
  series.metrics.mutable_ranks(0)->set_tuning_revision(4);
  series.metrics.mutable_ranks(1)->set_tuning_revision(3);

  EXPECT_THAT(PrometheusText({series}, ClusterFigures()),
              HasSubstr("deltapipe_tuning_revision{job_id=\"text-1\"} 3\n"));
}

TEST(PrometheusMetricsTest, AJobThatIsNotGivenHasNoSeries) {
  EXPECT_THAT(PrometheusText({}, ClusterFigures()), Not(HasSubstr("job_id")));
}

TEST(PrometheusMetricsTest, ClusterFiguresAreThereWithoutJobs) {
  ClusterFigures cluster;
  cluster.version = "1.2.3";
  cluster.idle_workers = 2;
  cluster.busy_workers = 5;
  cluster.workers_lost = 1;
  cluster.jobs[v1::JOB_STATE_PENDING] = 4;
  cluster.heartbeats_missed = 6;
  cluster.watch_lag = 17;
  cluster.rpcs[{"JobService.GetJob", "NOT_FOUND"}] = 3;
  cluster.commit_seconds.add_bounds(0.5);
  cluster.commit_seconds.add_counts(2);
  cluster.commit_seconds.add_counts(1);

  const std::string text = PrometheusText({}, cluster);

  EXPECT_THAT(text, HasSubstr("deltapipe_build_info{version=\"1.2.3\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_workers{state=\"busy\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_jobs{state=\"PENDING\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_workers_lost_total 1\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_heartbeats_missed_total 6\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_watch_lag_revisions 17\n"));
  EXPECT_THAT(text,
              HasSubstr("deltapipe_rpcs_total{method=\"JobService.GetJob\""
                        ",code=\"NOT_FOUND\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_db_commit_seconds_bucket{le=\"0.5\"} 2"
                              "\n"));
  EXPECT_THAT(text, HasSubstr("deltapipe_db_commit_seconds_count 3\n"));
}

TEST(PrometheusMetricsTest, NamesFollowTheRules) {
  std::set<std::string> names;
  for (const MetricDescription& metric : MetricCatalogue()) {
    EXPECT_TRUE(names.insert(metric.name).second) << metric.name;
    const bool is_total = absl::EndsWith(metric.name, "_total");
    EXPECT_EQ(is_total, metric.type == "counter") << metric.name;
    EXPECT_TRUE(absl::EndsWith(metric.help, ".")) << metric.name;
    for (const std::string& label : metric.labels) {
      // Prometheus itself sets these.
      EXPECT_NE(label, "job") << metric.name;
      EXPECT_NE(label, "instance") << metric.name;
    }
  }
}

TEST(PrometheusMetricsTest, TheDocumentListsEveryMetricAsItIs) {
  const auto document = ReadFile("docs/metrics.md");
  ASSERT_TRUE(document.ok()) << document.status();
  for (const MetricDescription& metric : MetricCatalogue()) {
    const std::string row = absl::StrCat(
        "| `", metric.name, "` | ", metric.type, " | ",
        absl::StrJoin(metric.labels, ", "), " | ", metric.help, " |\n");
    EXPECT_THAT(*document, HasSubstr(row))
        << "run scripts/metrics_reference to write the tables anew";
  }
}

TEST(PrometheusMetricsTest, SavedActivationsAreThereWhereTheyArePacked) {
  const std::string text =
      PrometheusText({Played(2, 1, 3, /*packs=*/true)}, ClusterFigures());

  const std::string place = "{job_id=\"text-1\",stage=\"1\",replica=\"0\"";
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_activation_bytes_total",
                                     place, ",kind=\"raw\"} 273000000\n")));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_activation_bytes_total",
                                     place, ",kind=\"unique\"} 186000000\n")));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_activation_bytes_total",
                                     place, ",kind=\"packed\"} 24300000\n")));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_activation_bytes_total",
                                     place, ",kind=\"passed\"} 1500000\n")));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_activation_bytes_total",
                                     place, ",kind=\"metadata\"} 180000\n")));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_activation_peak_bytes",
                                     place, "} 7400000\n")));
  EXPECT_THAT(
      text, HasSubstr(absl::StrCat(
                "deltapipe_saved_activation_scratch_peak_bytes", place, "} ")));
  EXPECT_THAT(
      text,
      HasSubstr("deltapipe_saved_activation_offloaded_peak_bytes{job_id=\"text-"
                "1\",stage=\"0\",replica=\"0\"} 3300000\n"));
  EXPECT_THAT(text,
              Not(HasSubstr(absl::StrCat(
                  "deltapipe_saved_activation_offloaded_peak_bytes", place))));
  EXPECT_THAT(text,
              HasSubstr(absl::StrCat("deltapipe_saved_gradient_error", place,
                                     ",operator=\"gelu\"} 0.021\n")));

  EXPECT_THAT(PrometheusText({Played(2, 1)}, ClusterFigures()),
              Not(HasSubstr("deltapipe_saved_")));
}

TEST(PrometheusMetricsTest, SavedSeriesOfARankAreBounded) {
  v1::JobMetrics job = Played(1, 1);
  const int without = NumSeries(PrometheusText({job}, ClusterFigures()));
  FakeClock clock;
  LiveFigures figures(&clock);
  DemoJob demo("text-1", 1, 1, &figures);
  demo.Start();
  v1::StepReport report;
  report.set_generation(demo.job().generation());
  report.set_steps(1);
  for (int i = 0; i < 100; ++i) {
    report.mutable_saved()->add_errors()->set_operator_(absl::StrCat("op", i));
  }
  figures.WorkerReported("text-1", 0, 0, report);
  *job.mutable_ranks(0)->mutable_saved() =
      figures.Get("text-1")->ranks(0).saved();

  EXPECT_EQ(NumSeries(PrometheusText({job}, ClusterFigures())) - without,
            kMaxSavedSeriesPerRank);
}

}  // namespace
}  // namespace deltapipe
