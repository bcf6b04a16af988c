// What the coordinator's HTTP server answers, by path:
//   /                the status page (page/), which asks for what follows
//   /api/jobs        the newest jobs, JSON
//   /api/jobs/ID     deltapipe.v1.JobMetrics of one, JSON
//   /metrics         Prometheus
//   /healthz         "ok"
//
// Thread-safe if the source is. Everything is in the program itself.
#ifndef DELTAPIPE_COORDINATOR_METRICS_STATUS_PAGES_H_
#define DELTAPIPE_COORDINATOR_METRICS_STATUS_PAGES_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "coordinator/metrics/http_server.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

struct StatusSource {
  std::function<absl::StatusOr<v1::ListJobsResponse>()> list_jobs;
  std::function<absl::StatusOr<v1::JobMetrics>(const std::string& id)>
      get_metrics;
  std::function<std::string()> prometheus_text;
  Clock* clock = Clock::Real();
};

/// 404 for what is not there; the text of the status where the source fails.
HttpAnswer AnswerStatusPath(const StatusSource& source,
                            const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_STATUS_PAGES_H_
