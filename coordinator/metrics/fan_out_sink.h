// FanOutSink: a MetricSink that passes every call on to several, in order.
//
// As thread-safe as those; owns none of them.
#ifndef DELTAPIPE_COORDINATOR_METRICS_FAN_OUT_SINK_H_
#define DELTAPIPE_COORDINATOR_METRICS_FAN_OUT_SINK_H_

#include <string>
#include <utility>
#include <vector>

#include "coordinator/background/metric_sink.h"

namespace deltapipe {

class FanOutSink : public MetricSink {
 public:
  /// They outlive this; null entries are left out.
  explicit FanOutSink(const std::vector<MetricSink*>& sinks);

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
              const v1::StepTrace& trace) override;

 private:
  std::vector<MetricSink*> sinks_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_FAN_OUT_SINK_H_
