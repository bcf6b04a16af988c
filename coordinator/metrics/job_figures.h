// JobFigures: one job's figures, built up from what it tells a MetricSink.
//
// Owned by LiveFigures, which locks. Workers count from the start of their
// assignment: a new generation begins at 0 again. Here the counts of all
// generations are added up, so that totals never fall.
//
//   JobFigures figures(job);
//   figures.Start(job, plan, now);
//   figures.Report(0, 1, report, now);
//   v1::JobMetrics metrics = figures.Snapshot(now);
#ifndef DELTAPIPE_COORDINATOR_METRICS_JOB_FIGURES_H_
#define DELTAPIPE_COORDINATOR_METRICS_JOB_FIGURES_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "coordinator/metrics/job_series.h"
#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// Times are milliseconds since the Unix epoch; if that clock goes back, no
/// time passes.
class JobFigures {
 public:
  /// Losses that are kept: of twice as many, every other one goes.
  static constexpr int kMaxLosses = 240;
  static constexpr size_t kMaxEvents = 50;

  explicit JobFigures(const v1::Job& job);

  /// Training begins, or goes on in a new generation.
  void Start(const v1::Job& job, const v1::Plan& plan, int64_t now_millis);
  void Change(const v1::Job& job, int64_t now_millis);
  /// Ignored if it is of an earlier generation, or of no rank of the plan.
  void Report(int stage, int replica, const v1::StepReport& report,
              int64_t now_millis);
  /// The job is about to go back, for one of MetricSink's causes. From the last
  /// step until now nobody knew of it.
  void GoBack(const std::string& cause, int64_t now_millis);
  void Complete(const v1::StepSummary& summary, int64_t now_millis);
  void Validate(const v1::StepSummary& summary);
  void Checkpoint(const v1::CheckpointMetrics& checkpoint);
  /// Until the next generation; empty: nothing is known.
  void SetStragglers(const v1::StragglerAnalysis& analysis);
  /// Events in order of their sequence; those that are here are ignored.
  void AddEvents(const std::vector<v1::JobEvent>& events);
  int64_t last_event_sequence() const { return last_event_sequence_; }

  v1::JobMetrics Snapshot(int64_t now_millis) const;
  /// The same and what it has no field for; rate limits are left out.
  JobSeries Series(int64_t now_millis) const;
  /// 0: it has not ended.
  int64_t end_time_millis() const { return metrics_.end_time_millis(); }

 private:
  struct Rank {
    v1::RankMetrics metrics;
    /// The generation's last report, and the sums of the generations before.
    v1::StepReport last;
    v1::RankMetrics base;
    RankPhases phases;
    double mean_compute_seconds = 0;  // exponential mean, per step
    double predicted_seconds = 0;
    int64_t hash_step = -1;
    uint64_t weights_hash = 0;
  };
  struct Link {
    v1::LinkMetrics metrics;
    int64_t base_raw = 0;
    int64_t base_wire = 0;
    double base_seconds = 0;
    int64_t not_finite = 0;
    int64_t base_not_finite = 0;
    v1::LinkReport last;
  };
  using LinkKey = std::tuple<int, bool, int>;  // boundary, gradient, replica

  void StartRanks(const v1::Plan& plan);
  /// Divides the time since the last step among its causes.
  void LoseRestart(int64_t now_millis);
  /// Compute of a step in which the worker does as many micro-batches as the
  /// plan has, by its pace in these steps; 0: it did none.
  double PaceSeconds(const v1::StepReport& report) const;
  void ReportDropped(int stage, const v1::StepReport& report, Rank* rank);
  void ReportLinks(int replica, const v1::StepReport& report);
  void CompareWeights(int stage, int replica, const v1::StepReport& report);
  void AddLoss(int64_t step, double loss);
  double EtaSeconds() const;

  v1::JobMetrics metrics_;  // ranks, links and losses are added by Snapshot
  int64_t batch_samples_ = 0;
  int num_microbatches_ = 0;     // of a replica, by the plan
  int64_t dropped_samples_ = 0;  // reported, of steps that are not complete
  std::map<std::pair<int, int>, Rank> ranks_;  // by stage, replica
  std::map<LinkKey, Link> links_;
  std::deque<double> recent_step_seconds_;
  /// Of this generation; -1: none yet.
  int64_t last_step_ = -1;
  bool is_first_step_ = false;
  int64_t furthest_step_ = -1;
  double useful_seconds_ = 0;
  double paused_seconds_ = 0;
  int64_t paused_since_millis_ = 0;  // 0: not paused
  int64_t progress_millis_ = 0;      // of the last step or start
  // Of this restart, 0: not yet: when the job was told to go back, and when it
  // had its workers again.
  int64_t detected_millis_ = 0;
  int64_t assigned_millis_ = 0;
  double detect_seconds_ = 0;
  double reload_seconds_ = 0;
  std::map<std::string, int64_t> restarts_;  // by cause
  std::vector<v1::LossPoint> losses_;
  int64_t loss_stride_ = 1;
  int64_t num_losses_ = 0;
  std::deque<v1::JobEvent> events_;
  int64_t last_event_sequence_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_JOB_FIGURES_H_
