// A job's latest figures as tables for people.
#ifndef DELTAPIPE_COORDINATOR_CLI_JOB_METRICS_TABLE_H_
#define DELTAPIPE_COORDINATOR_CLI_JOB_METRICS_TABLE_H_

#include <cstdint>
#include <string>

#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// The job's line, then a table of its workers and, where stages are joined,
/// one of its links. Times of a step are in seconds per step.
std::string JobMetricsTables(const v1::JobMetrics& metrics, int64_t now_millis);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_JOB_METRICS_TABLE_H_
