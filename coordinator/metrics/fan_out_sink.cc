#include "coordinator/metrics/fan_out_sink.h"

namespace deltapipe {

FanOutSink::FanOutSink(const std::vector<MetricSink*>& sinks) {
  for (MetricSink* const sink : sinks) {
    if (sink != nullptr) sinks_.push_back(sink);
  }
}

void FanOutSink::JobStarted(const v1::Job& job, const v1::Plan& plan) {
  for (MetricSink* const sink : sinks_) sink->JobStarted(job, plan);
}

void FanOutSink::JobChanged(const v1::Job& job) {
  for (MetricSink* const sink : sinks_) sink->JobChanged(job);
}

void FanOutSink::WorkerReported(const std::string& job_id, int stage,
                                int replica, const v1::StepReport& report) {
  for (MetricSink* const sink : sinks_) {
    sink->WorkerReported(job_id, stage, replica, report);
  }
}

void FanOutSink::WentBack(const std::string& job_id, const std::string& cause) {
  for (MetricSink* sink : sinks_) sink->WentBack(job_id, cause);
}

void FanOutSink::StepCompleted(const std::string& job_id,
                               const v1::StepSummary& summary) {
  for (MetricSink* const sink : sinks_) sink->StepCompleted(job_id, summary);
}

void FanOutSink::Validated(const std::string& job_id,
                           const v1::StepSummary& summary) {
  for (MetricSink* const sink : sinks_) sink->Validated(job_id, summary);
}

void FanOutSink::CheckpointCommitted(const std::string& job_id, int64_t step,
                                     int64_t bytes, double seconds,
                                     double stall_seconds) {
  for (MetricSink* const sink : sinks_) {
    sink->CheckpointCommitted(job_id, step, bytes, seconds, stall_seconds);
  }
}

void FanOutSink::StragglersJudged(const std::string& job_id,
                                  const v1::StragglerAnalysis& analysis) {
  for (MetricSink* const sink : sinks_) {
    sink->StragglersJudged(job_id, analysis);
  }
}

void FanOutSink::Traced(const std::string& job_id, int stage, int replica,
                        const v1::StepTrace& trace) {
  for (MetricSink* const sink : sinks_) {
    sink->Traced(job_id, stage, replica, trace);
  }
}

}  // namespace deltapipe
