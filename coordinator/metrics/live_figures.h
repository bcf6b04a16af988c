// LiveFigures: the latest figures of the jobs that train or have ended lately;
// what `metrics`, the status page and Prometheus show.
//
// Thread-safe; no call blocks. A job appears when its training begins and goes
// when kMaxEnded others have ended after it.
//
//   LiveFigures figures(clock);
//   services.metrics = &figures;
//   std::optional<v1::JobMetrics> metrics = figures.Get("text-1");
#ifndef DELTAPIPE_COORDINATOR_METRICS_LIVE_FIGURES_H_
#define DELTAPIPE_COORDINATOR_METRICS_LIVE_FIGURES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/background/metric_sink.h"
#include "coordinator/metrics/job_figures.h"

namespace deltapipe {

class LiveFigures : public MetricSink {
 public:
  static constexpr int kMaxEnded = 20;

  /// `clock` outlives this.
  explicit LiveFigures(Clock* clock) : clock_(clock) {}

  /// None if the job has not begun, or ended long ago.
  std::optional<v1::JobMetrics> Get(const std::string& job_id);
  /// By id: jobs that have not ended, and those that ended less than `grace`
  /// ago.
  std::vector<v1::JobMetrics> List(Nanos grace);
  /// The same, for Prometheus.
  std::vector<JobSeries> Series(Nanos grace);

  /// Events come from the store, after the last one that is known here.
  int64_t LastEvent(const std::string& job_id);
  void AddEvents(const std::string& job_id,
                 const std::vector<v1::JobEvent>& events);

  void JobStarted(const v1::Job& job, const v1::Plan& plan) override;
  void JobChanged(const v1::Job& job) override;
  void WorkerReported(const std::string& job_id, int stage, int replica,
                      const v1::StepReport& report) override;
  void WentBack(const std::string& job_id, const std::string& cause) override;
  void StepCompleted(const std::string& job_id,
                     const v1::StepSummary& summary) override;
  void Validated(const std::string& job_id,
                 const v1::StepSummary& summary) override;
  void CheckpointCommitted(const std::string& job_id, int64_t step,
                           int64_t bytes, double seconds,
                           double stall_seconds) override;
  void StragglersJudged(const std::string& job_id,
                        const v1::StragglerAnalysis& analysis) override;
  void Traced(const std::string& job_id, int stage, int replica,
              const v1::StepTrace& trace) override {}

 private:
  JobFigures* Find(const std::string& job_id) DP_REQUIRES(mutex_);
  /// Drops the job that ended first while there are too many.
  void DropEnded() DP_REQUIRES(mutex_);

  Clock* const clock_;
  Mutex mutex_;
  std::map<std::string, JobFigures> jobs_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_LIVE_FIGURES_H_
