// MetricSink: where jobs leave the figures that others show: Prometheus, the
// status page, event files.
//
// Called by the jobs' threads, several at a time; an implementation is
// thread-safe, never blocks and never calls back.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_METRIC_SINK_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_METRIC_SINK_H_

#include <cstdint>
#include <string>

#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

// Why a job went back: WentBack's causes.
inline constexpr char kWorkerLost[] = "worker_lost";
inline constexpr char kWorkerLeft[] = "worker_left";
/// Workers could not reach each other, and all of them live.
inline constexpr char kConnection[] = "connection";

class MetricSink {
 public:
  virtual ~MetricSink() = default;

  /// Training begins or goes on, with this plan, in job.generation().
  virtual void JobStarted(const v1::Job& job, const v1::Plan& plan) = 0;
  /// The stored job has changed: state, reason, restarts, checkpoint_step.
  virtual void JobChanged(const v1::Job& job) = 0;
  /// One worker's report, as it came.
  virtual void WorkerReported(const std::string& job_id, int stage, int replica,
                              const v1::StepReport& report) = 0;
  /// The job goes back to a checkpoint, or to its beginning, as it just found
  /// out that it must.
  virtual void WentBack(const std::string& job_id,
                        const std::string& cause) = 0;
  /// A step of all workers.
  virtual void StepCompleted(const std::string& job_id,
                             const v1::StepSummary& summary) = 0;
  /// Of `summary` the step, validation_loss and validation_accuracy.
  virtual void Validated(const std::string& job_id,
                         const v1::StepSummary& summary) = 0;
  /// All workers have stored it. Seconds are of the slowest worker.
  virtual void CheckpointCommitted(const std::string& job_id, int64_t step,
                                   int64_t bytes, double seconds,
                                   double stall_seconds) = 0;
  /// Of the workers' timings, judged anew; empty: nothing is known any more.
  virtual void StragglersJudged(const std::string& job_id,
                                const v1::StragglerAnalysis& analysis) = 0;
  /// Asked for by a user.
  virtual void Traced(const std::string& job_id, int stage, int replica,
                      const v1::StepTrace& trace) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_METRIC_SINK_H_
