// SyncMeter: from what workers tell of their gradients' transactions to one
// forecast for the job, that of its slowest stage.
//
// Fed by the job's actor; not thread-safe.
//
//   meter.Add(rank, report);            // each StepReport
//   if (const auto forecast = meter.Take(num_stages, num_replicas)) ...
#ifndef DELTAPIPE_COORDINATOR_TUNING_SYNC_METER_H_
#define DELTAPIPE_COORDINATOR_TUNING_SYNC_METER_H_

#include <map>
#include <optional>

#include "coordinator/tuning/compression_verdict.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

class SyncMeter {
 public:
  void Add(int rank, const v1::StepReport& report);

  /// Once every worker has told of ten transactions since the last forecast.
  /// Nothing before, and where their figures forecast nothing.
  std::optional<SyncForecast> Take(int num_stages, int num_replicas);

  void Clear() { windows_.clear(); }

 private:
  /// Since the last forecast.
  struct Window {
    v1::SyncReport sync;
    double step_seconds = 0;  // of all steps that reports with `sync` told of
  };
  std::map<int, Window> windows_;  // by rank
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_SYNC_METER_H_
