// Shows what the coordinator's figures look like, without workers:
//   demo_coordinator exposition          what /metrics answers
//   demo_coordinator catalogue           the tables of docs/metrics.md
//   demo_coordinator tensorboard DIR     event files of a short job
//   demo_coordinator serve               the status page, until stdin ends
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "coordinator/metrics/live_figures.h"
#include "coordinator/metrics/prometheus_metrics.h"
#include "coordinator/metrics/status_pages.h"
#include "coordinator/metrics/tensorboard_writer.h"
#include "coordinator/metrics/testing/demo_job.h"

namespace deltapipe {
namespace {

ClusterFigures Cluster() {
  ClusterFigures cluster;
  cluster.version = "0.0.0";
  cluster.busy_workers = 6;
  cluster.idle_workers = 1;
  cluster.jobs[v1::JOB_STATE_RUNNING] = 1;
  cluster.rpcs[{"JobService.GetJob", "OK"}] = 12;
  cluster.commit_seconds.add_bounds(0.01);
  cluster.commit_seconds.add_counts(40);
  cluster.commit_seconds.add_counts(1);
  cluster.commit_seconds.set_sum(0.2);
  return cluster;
}

/// The first boundary is held back, and has sent numbers that are none.
std::string Text(LiveFigures* figures) {
  std::vector<JobSeries> jobs = figures->Series(kSeriesGrace);
  for (JobSeries& job : jobs) {
    job.rate_limit_bytes_per_second[0] = 12.5e6;
    job.not_finite[{0, true, 0}] = 3;
  }
  return PrometheusText(jobs, Cluster());
}

void Play(DemoJob* job) {
  job->Start();
  job->PackActivations();
  job->DamageFrames();
  for (int i = 0; i < 260; ++i) job->Step(0.05 + 0.002 * (i % 5));
  job->Checkpoint();
  for (int i = 0; i < 30; ++i) job->Step(0.052);
  job->Restart();
  for (int i = 0; i < 100; ++i) job->Step(0.05 + 0.002 * (i % 5), 1.6);
  job->FindStraggler();
  for (int i = 0; i < 30; ++i) job->Step(0.05 + 0.002 * (i % 5), 1.6);
  job->Checkpoint();
}

int PrintCatalogue() {
  std::cout << "| name | type | labels | meaning |\n"
            << "| --- | --- | --- | --- |\n";
  for (const MetricDescription& metric : MetricCatalogue()) {
    std::cout << "| `" << metric.name << "` | " << metric.type << " | "
              << absl::StrJoin(metric.labels, ", ") << " | " << metric.help
              << " |\n";
  }
  return 0;
}

int WriteEventFiles(const std::string& folder) {
  const auto writer = TensorBoardWriter::Create(folder, Clock::Real());
  if (!writer.ok()) {
    std::cerr << writer.status() << "\n";
    return 1;
  }
  DemoJob job("text-1", 2, 2, writer->get());
  Play(&job);
  return 0;
}

int Serve(LiveFigures* figures, const std::vector<DemoJob*>& demos) {
  StatusSource source;
  source.list_jobs = [&]() -> absl::StatusOr<v1::ListJobsResponse> {
    v1::ListJobsResponse jobs;
    for (const DemoJob* demo : demos) *jobs.add_jobs() = demo->job();
    return jobs;
  };
  source.get_metrics =
      [&](const std::string& id) -> absl::StatusOr<v1::JobMetrics> {
    for (const DemoJob* demo : demos) {
      if (demo->job().id() != id) continue;
      figures->AddEvents(id, demo->events());
      return *figures->Get(id);
    }
    return absl::NotFoundError(absl::StrCat("no job '", id, "'"));
  };
  source.prometheus_text = [&] { return Text(figures); };
  HttpServerOptions options;
  options.handler = [&](const std::string& path) {
    return AnswerStatusPath(source, path);
  };
  const auto server = HttpServer::Start(options);
  if (!server.ok()) {
    std::cerr << server.status() << "\n";
    return 1;
  }
  std::cout << (*server)->address() << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
  }
  return 0;
}

int Run(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "catalogue") return PrintCatalogue();
  if (what == "tensorboard" && argc > 2) return WriteEventFiles(argv[2]);
  LiveFigures figures(Clock::Real());
  DemoJob text("text-1", 3, 2, &figures);
  Play(&text);
  DemoJob ended("a-longer-name-of-a-job-that-has-ended-2", 1, 2, &figures);
  Play(&ended);
  ended.Change(v1::JOB_STATE_FAILED,
               "the weights of stage 0 differ between its replicas");
  if (what == "exposition") {
    std::cout << Text(&figures);
    return 0;
  }
  if (what == "serve") return Serve(&figures, {&text, &ended});
  std::cerr << "usage: demo_coordinator exposition | catalogue | serve | "
               "tensorboard DIR\n";
  return 2;
}

}  // namespace
}  // namespace deltapipe

int main(int argc, char** argv) { return deltapipe::Run(argc, argv); }
