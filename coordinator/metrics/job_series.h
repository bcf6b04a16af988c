// JobSeries: a job's figures and what JobMetrics has no field for; what
// Prometheus shows of the job.
//
// Made by LiveFigures (rate limits excepted, which whoever knows the tuning
// adds) and read by PrometheusText. A plain value.
#ifndef DELTAPIPE_COORDINATOR_METRICS_JOB_SERIES_H_
#define DELTAPIPE_COORDINATOR_METRICS_JOB_SERIES_H_

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

/// Of a worker since the start, so that no sum ever falls.
struct RankPhases {
  v1::PhaseSeconds phases;
  /// Of gradients, in which the compute thread did not update weights.
  double reduce_seconds = 0;
};

struct JobSeries {
  JobSeries() = default;
  /// Figures alone: neither phases nor round trips are known.
  // NOLINTNEXTLINE(google-explicit-constructor)
  JobSeries(v1::JobMetrics figures) : metrics(std::move(figures)) {}

  v1::JobMetrics metrics;
  /// One for each of metrics.ranks, or none at all.
  std::vector<RankPhases> phases;
  /// By boundary and replica, in seconds; those that are known.
  std::map<std::pair<int, int>, double> round_trip_seconds;
  /// NaNs and infinities that were sent since the start, by boundary, whether
  /// it is gradients, and replica; those that sent any.
  std::map<std::tuple<int, bool, int>, int64_t> not_finite;
  /// By boundary, of each direction and replica; those that have one.
  std::map<int, double> rate_limit_bytes_per_second;
  /// How often this coordinator saw the job go back, by cause.
  std::map<std::string, int64_t> restarts;
  /// Parts of metrics.lost().restart.
  double detect_seconds = 0;
  double reload_seconds = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_JOB_SERIES_H_
