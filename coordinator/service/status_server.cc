#include "coordinator/service/status_server.h"

#include <climits>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/units.h"
#include "base/version.h"
#include "coordinator/metrics/prometheus_metrics.h"
#include "coordinator/metrics/status_pages.h"
#include "coordinator/rpc/get_metrics.h"
#include "coordinator/rpc/list_jobs.h"

namespace deltapipe {
namespace {

/// Jobs that the page lists, newest first.
constexpr int kListedJobs = 50;

ClusterFigures Cluster(ControlPlane* plane, int64_t start_time_millis) {
  ClusterFigures cluster;
  cluster.version = kVersion;
  cluster.start_time_millis = start_time_millis;
  cluster.workers_lost = plane->jobs()->num_workers_lost();
  cluster.heartbeats_missed = plane->roster()->num_heartbeats_missed();
  cluster.watch_lag = plane->events()->LongestQueue();
  cluster.rpcs = plane->rpcs()->counts();
  cluster.commit_seconds = plane->store()->commit_seconds();
  const v1::ListWorkersResponse listed = plane->roster()->List();
  for (const v1::Worker& worker : listed.workers()) {
    ++(worker.job_id().empty() ? cluster.idle_workers : cluster.busy_workers);
  }
  JobQuery query;
  query.limit = INT_MAX;
  query.include_finished = false;
  for (const v1::JobState state :
       {v1::JOB_STATE_PENDING, v1::JOB_STATE_STARTING, v1::JOB_STATE_RUNNING,
        v1::JOB_STATE_PAUSED}) {
    cluster.jobs[state] = 0;
  }
  // A store that cannot be read is told of by the calls that need it.
  const auto jobs = plane->store()->ListJobs(query);
  if (!jobs.ok()) return cluster;
  for (const StoredJob& stored : *jobs) ++cluster.jobs[stored.job.state()];
  return cluster;
}

/// Figures of the jobs, with the limits of their stored tuning.
std::vector<JobSeries> Jobs(ControlPlane* plane) {
  std::vector<JobSeries> jobs = plane->figures()->Series(kSeriesGrace);
  for (JobSeries& job : jobs) {
    const auto stored = plane->store()->GetJob(job.metrics.id());
    if (!stored.ok() || !stored->progress.has_value()) continue;
    for (const v1::BoundaryTuning& boundary :
         stored->progress->tuning().boundaries()) {
      const auto bits = ParseBandwidth(boundary.rate_limit());
      // Else it has none: "unlimited".
      if (!bits.ok() || *bits <= 0 || !std::isfinite(*bits)) continue;
      job.rate_limit_bytes_per_second[boundary.boundary()] = *bits / 8;
    }
  }
  return jobs;
}

}  // namespace

absl::StatusOr<ListenAddress> ParseStatusAddress(const std::string& text) {
  const bool is_port = !text.empty() && text.find_first_not_of("0123456789") ==
                                            std::string::npos;
  return ParseListenAddress(is_port ? absl::StrCat("127.0.0.1:", text) : text);
}

absl::Status CheckMayServeStatus(const ListenAddress& address, bool insecure) {
  if (!IsLoopback(address.host) && !insecure) {
    return absl::PermissionDeniedError(absl::StrCat(
        "will not serve metrics on ", address.ToString(),
        ": everyone on the network could read them, and nothing is encrypted; "
        "listen on 127.0.0.1, or say --metrics-insecure if the network is "
        "yours"));
  }
  return CheckListenAddress(address);
}

absl::StatusOr<std::unique_ptr<HttpServer>> StartStatusServer(
    ControlPlane* plane, const ListenAddress& listen) {
  StatusSource source;
  source.clock = plane->clock();
  source.list_jobs = [plane] {
    v1::ListJobsRequest request;
    request.set_page_size(kListedJobs);
    request.set_include_finished(true);
    return ListJobs(plane, request);
  };
  source.get_metrics = [plane](const std::string& id) {
    v1::GetMetricsRequest request;
    request.set_id(id);
    return GetMetrics(plane, request);
  };
  const int64_t start_time_millis = plane->clock()->WallMillis();
  source.prometheus_text = [plane, start_time_millis] {
    return PrometheusText(Jobs(plane), Cluster(plane, start_time_millis));
  };
  HttpServerOptions options;
  // civetweb knows addresses, not names.
  options.host = listen.host == "localhost" ? "127.0.0.1" : listen.host;
  options.port = listen.port;
  options.is_loopback = IsLoopback(listen.host);
  options.handler = [source](const std::string& path) {
    return AnswerStatusPath(source, path);
  };
  return HttpServer::Start(std::move(options));
}

}  // namespace deltapipe
