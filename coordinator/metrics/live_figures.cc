#include "coordinator/metrics/live_figures.h"

#include <utility>

namespace deltapipe {

JobFigures* LiveFigures::Find(const std::string& job_id) {
  const auto found = jobs_.find(job_id);
  return found == jobs_.end() ? nullptr : &found->second;
}

std::optional<v1::JobMetrics> LiveFigures::Get(const std::string& job_id) {
  MutexLock lock(&mutex_);
  const JobFigures* const figures = Find(job_id);
  if (figures == nullptr) return std::nullopt;
  return figures->Snapshot(clock_->WallMillis());
}

std::vector<v1::JobMetrics> LiveFigures::List(Nanos grace) {
  std::vector<v1::JobMetrics> jobs;
  for (JobSeries& series : Series(grace)) {
    jobs.push_back(std::move(series.metrics));
  }
  return jobs;
}

std::vector<JobSeries> LiveFigures::Series(Nanos grace) {
  const int64_t now = clock_->WallMillis();
  const int64_t grace_millis =
      std::chrono::duration_cast<std::chrono::milliseconds>(grace).count();
  std::vector<JobSeries> jobs;
  MutexLock lock(&mutex_);
  for (const auto& [id, figures] : jobs_) {
    const int64_t end = figures.end_time_millis();
    if (end == 0 || now - end < grace_millis) {
      jobs.push_back(figures.Series(now));
    }
  }
  return jobs;
}

int64_t LiveFigures::LastEvent(const std::string& job_id) {
  MutexLock lock(&mutex_);
  const JobFigures* const figures = Find(job_id);
  return figures == nullptr ? 0 : figures->last_event_sequence();
}

void LiveFigures::AddEvents(const std::string& job_id,
                            const std::vector<v1::JobEvent>& events) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures != nullptr) figures->AddEvents(events);
}

void LiveFigures::JobStarted(const v1::Job& job, const v1::Plan& plan) {
  MutexLock lock(&mutex_);
  jobs_.try_emplace(job.id(), job)
      .first->second.Start(job, plan, clock_->WallMillis());
}

void LiveFigures::JobChanged(const v1::Job& job) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job.id());
  // One that waits for workers has no figures yet.
  if (figures == nullptr) return;
  figures->Change(job, clock_->WallMillis());
  DropEnded();
}

void LiveFigures::DropEnded() {
  while (true) {
    int num_ended = 0;
    auto first = jobs_.end();
    for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
      const int64_t end = it->second.end_time_millis();
      if (end == 0) continue;
      ++num_ended;
      if (first == jobs_.end() || end < first->second.end_time_millis()) {
        first = it;
      }
    }
    if (num_ended <= kMaxEnded) return;
    jobs_.erase(first);
  }
}

void LiveFigures::WorkerReported(const std::string& job_id, int stage,
                                 int replica, const v1::StepReport& report) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures == nullptr) return;
  figures->Report(stage, replica, report, clock_->WallMillis());
}

void LiveFigures::WentBack(const std::string& job_id,
                           const std::string& cause) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures != nullptr) figures->GoBack(cause, clock_->WallMillis());
}

void LiveFigures::StepCompleted(const std::string& job_id,
                                const v1::StepSummary& summary) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures != nullptr) figures->Complete(summary, clock_->WallMillis());
}

void LiveFigures::Validated(const std::string& job_id,
                            const v1::StepSummary& summary) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures != nullptr) figures->Validate(summary);
}

void LiveFigures::CheckpointCommitted(const std::string& job_id, int64_t step,
                                      int64_t bytes, double seconds,
                                      double stall_seconds) {
  v1::CheckpointMetrics checkpoint;
  checkpoint.set_step(step);
  checkpoint.set_bytes(bytes);
  checkpoint.set_seconds(seconds);
  checkpoint.set_stall_seconds(stall_seconds);
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures == nullptr) return;
  checkpoint.set_time_millis(clock_->WallMillis());
  figures->Checkpoint(checkpoint);
}

void LiveFigures::StragglersJudged(const std::string& job_id,
                                   const v1::StragglerAnalysis& analysis) {
  MutexLock lock(&mutex_);
  JobFigures* const figures = Find(job_id);
  if (figures != nullptr) figures->SetStragglers(analysis);
}

}  // namespace deltapipe
