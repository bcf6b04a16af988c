// TraceCollector: gathers the traces that workers send for one who waits.
//
// A MetricSink beside the others; thread-safe. Traces that nobody waits for are
// dropped. What is gathered is bounded by kMaxSpans.
//
//   auto gathering = traces->Gather("text-1");   // before asking the workers
//   DP_ASSIGN_OR_RETURN(auto ranks, gathering->Await(4 * 5, deadline, cancel));
#ifndef DELTAPIPE_COORDINATOR_METRICS_TRACE_COLLECTOR_H_
#define DELTAPIPE_COORDINATOR_METRICS_TRACE_COLLECTOR_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "coordinator/background/metric_sink.h"
#include "coordinator/metrics/chrome_trace.h"

namespace deltapipe {

class TraceCollector : public MetricSink {
 public:
  static constexpr int64_t kMaxSpans = 1000000;

  class Gathering {
   public:
    ~Gathering();
    /// Waits for `count` traces. DEADLINE_EXCEEDED says how many came; ABORTED:
    /// the job starts anew, stops or ends meanwhile; CANCELLED: `is_cancelled`,
    /// asked twice a second, says so; RESOURCE_EXHAUSTED: more than kMaxSpans.
    absl::StatusOr<std::vector<RankTrace>> Await(
        size_t count, Deadline deadline,
        const std::function<bool()>& is_cancelled);

   private:
    friend class TraceCollector;
    Gathering(TraceCollector* collector, std::string job_id)
        : collector_(collector), job_id_(std::move(job_id)) {}
    TraceCollector* const collector_;
    const std::string job_id_;
    // Guarded by collector_->mutex_.
    std::vector<RankTrace> traces_;
    int64_t num_spans_ = 0;
    std::string ended_reason_;
  };

  /// From here on until it is destroyed. Outlived by this.
  std::unique_ptr<Gathering> Gather(const std::string& job_id);

  void JobStarted(const v1::Job& job, const v1::Plan& plan) override;
  void JobChanged(const v1::Job& job) override;
  void WorkerReported(const std::string& job_id, int stage, int replica,
                      const v1::StepReport& report) override {}
  void WentBack(const std::string& job_id, const std::string& cause) override {}
  void StepCompleted(const std::string& job_id,
                     const v1::StepSummary& summary) override {}
  void Validated(const std::string& job_id,
                 const v1::StepSummary& summary) override {}
  void CheckpointCommitted(const std::string& job_id, int64_t step,
                           int64_t bytes, double seconds,
                           double stall_seconds) override {}
  void StragglersJudged(const std::string& job_id,
                        const v1::StragglerAnalysis& analysis) override {}
  void Traced(const std::string& job_id, int stage, int replica,
              const v1::StepTrace& trace) override;

 private:
  void End(const std::string& job_id, const std::string& reason);

  Mutex mutex_;
  CondVar changed_;
  std::set<Gathering*> gatherings_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_TRACE_COLLECTOR_H_
