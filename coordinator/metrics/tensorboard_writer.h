// TensorBoardWriter: a MetricSink that writes event files, one folder a job,
// which `tensorboard --logdir DIR` shows.
//
// Thread-safe; no call blocks: a thread of its own writes what has come since,
// every kFlushMillis. If it cannot write, it says so in the log once, and
// forgets what would have been written; training does not care. What is waiting
// is bounded by kMaxQueuedBytes.
//
//   DP_ASSIGN_OR_RETURN(auto writer, TensorBoardWriter::Create("tb", clock));
//   services.metrics = writer.get();
#ifndef DELTAPIPE_COORDINATOR_METRICS_TENSORBOARD_WRITER_H_
#define DELTAPIPE_COORDINATOR_METRICS_TENSORBOARD_WRITER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/background/metric_sink.h"

namespace deltapipe {

class TensorBoardWriter : public MetricSink {
 public:
  static constexpr int kFlushMillis = 2000;
  static constexpr size_t kMaxQueuedBytes = 16 << 20;

  /// Makes `folder`. The errors of MakeDirectories. `clock` outlives this.
  static absl::StatusOr<std::unique_ptr<TensorBoardWriter>> Create(
      const std::string& folder, Clock* clock);
  /// Writes what is waiting.
  ~TensorBoardWriter() override;

  /// Writes what is waiting now. UNAVAILABLE, RESOURCE_EXHAUSTED, ...: the disk
  /// (see base/file.h); it is lost then.
  absl::Status Flush();

  void JobStarted(const v1::Job& job, const v1::Plan& plan) override;
  void JobChanged(const v1::Job& job) override;
  void WorkerReported(const std::string& job_id, int stage, int replica,
                      const v1::StepReport& report) override;
  void WentBack(const std::string& job_id, const std::string& cause) override {}
  void StepCompleted(const std::string& job_id,
                     const v1::StepSummary& summary) override;
  void Validated(const std::string& job_id,
                 const v1::StepSummary& summary) override;
  void CheckpointCommitted(const std::string& job_id, int64_t step,
                           int64_t bytes, double seconds,
                           double stall_seconds) override;
  void StragglersJudged(const std::string& job_id,
                        const v1::StragglerAnalysis& analysis) override {}
  void Traced(const std::string& job_id, int stage, int replica,
              const v1::StepTrace& trace) override {}

 private:
  struct Job {
    std::string path;     // of its event file
    std::string waiting;  // records
    bool is_ended = false;
  };
  using Scalars = std::vector<std::pair<std::string, float>>;

  TensorBoardWriter(const std::string& folder, Clock* clock);
  void Run();
  void Add(const std::string& job_id, int64_t step, const Scalars& scalars);
  void AddRecord(const std::string& payload, Job* job) DP_REQUIRES(mutex_);
  double WallSeconds();

  const std::string folder_;
  Clock* const clock_;
  /// Held while files are written; before mutex_.
  Mutex file_mutex_;
  Mutex mutex_;
  std::map<std::string, Job> jobs_ DP_GUARDED_BY(mutex_);
  int64_t num_files_ DP_GUARDED_BY(mutex_) = 0;
  size_t waiting_bytes_ DP_GUARDED_BY(mutex_) = 0;
  CancelToken stop_;
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_TENSORBOARD_WRITER_H_
