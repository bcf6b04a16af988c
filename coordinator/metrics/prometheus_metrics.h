// Prometheus' text exposition of the figures that LiveFigures holds.
//
// Pure; called for each scrape. Series are bounded: at most
// kMaxSeriesPerRank for a worker and its links, kMaxSavedSeriesPerRank more
// where it packs saved activations, a few dozen a job, and none of a job that
// is not in `jobs`. metrics.def lists the metrics.
//
//   PrometheusText(figures.Series(kSeriesGrace), cluster)
#ifndef DELTAPIPE_COORDINATOR_METRICS_PROMETHEUS_METRICS_H_
#define DELTAPIPE_COORDINATOR_METRICS_PROMETHEUS_METRICS_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "coordinator/metrics/job_series.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// How long the series of a job outlive it, so that its last figures are
/// scraped.
inline constexpr Nanos kSeriesGrace = std::chrono::minutes(5);
inline constexpr int kMaxSeriesPerRank = 38;
/// Five kinds of bytes, two peaks, and the errors of 20 operators.
inline constexpr int kMaxSavedSeriesPerRank = 27;

/// What does not belong to one job.
struct ClusterFigures {
  std::string version;
  int64_t start_time_millis = 0;
  int64_t idle_workers = 0;
  int64_t busy_workers = 0;
  int64_t workers_lost = 0;
  int64_t heartbeats_missed = 0;
  int64_t watch_lag = 0;  // events
  /// How often each method was answered with each status code. Bounded by
  /// whoever counts.
  std::map<std::pair<std::string, std::string>, int64_t> rpcs;
  v1::Histogram commit_seconds;
  /// Of jobs that have not ended.
  std::map<v1::JobState, int64_t> jobs;
};

std::string PrometheusText(const std::vector<JobSeries>& jobs,
                           const ClusterFigures& cluster);

struct MetricDescription {
  std::string type;  // "counter", "gauge", "histogram"
  std::string name;  // with the prefix
  std::vector<std::string> labels;
  std::string help;
};
/// Every metric that there can be, in the order of the exposition.
std::vector<MetricDescription> MetricCatalogue();

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_PROMETHEUS_METRICS_H_
