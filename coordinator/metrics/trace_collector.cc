#include "coordinator/metrics/trace_collector.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr std::chrono::milliseconds kCancelInterval{500};

}  // namespace

std::unique_ptr<TraceCollector::Gathering> TraceCollector::Gather(
    const std::string& job_id) {
  std::unique_ptr<Gathering> gathering(new Gathering(this, job_id));
  MutexLock lock(&mutex_);
  gatherings_.insert(gathering.get());
  return gathering;
}

TraceCollector::Gathering::~Gathering() {
  MutexLock lock(&collector_->mutex_);
  collector_->gatherings_.erase(this);
}

absl::StatusOr<std::vector<RankTrace>> TraceCollector::Gathering::Await(
    size_t count, Deadline deadline,
    const std::function<bool()>& is_cancelled) {
  while (!is_cancelled()) {
    const Deadline interval = Deadline::After(kCancelInterval);
    const bool is_last = !deadline.is_infinite() &&
                         deadline.time_point() <= interval.time_point();
    MutexLock lock(&collector_->mutex_);
    collector_->changed_.WaitUntil(lock, is_last ? deadline : interval, [&] {
      return traces_.size() >= count || !ended_reason_.empty() ||
             num_spans_ > kMaxSpans;
    });
    if (num_spans_ > kMaxSpans) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the trace has more than ", kMaxSpans,
                       " spans: ask for fewer steps"));
    }
    if (traces_.size() >= count) return std::move(traces_);
    if (!ended_reason_.empty()) {
      return absl::AbortedError(absl::StrCat(
          "job '", job_id_, "' ", ended_reason_, " while it was traced"));
    }
    if (is_last) {
      return absl::DeadlineExceededError(absl::StrCat(
          "only ", traces_.size(), " of ", count, " traces of job '", job_id_,
          "' came in time: ask for fewer steps, or see whether it still "
          "trains ('deltapipe describe ",
          job_id_, "')"));
    }
  }
  return absl::CancelledError("nobody waits for the trace any more");
}

void TraceCollector::JobStarted(const v1::Job& job, const v1::Plan&) {
  End(job.id(), absl::StrCat("began generation ", job.generation()));
}

void TraceCollector::JobChanged(const v1::Job& job) {
  if (job.state() == v1::JOB_STATE_RUNNING) return;
  End(job.id(), absl::StrCat("became ", StateName(job.state()),
                             job.reason().empty() ? "" : " (", job.reason(),
                             job.reason().empty() ? "" : ")"));
}

void TraceCollector::End(const std::string& job_id, const std::string& reason) {
  MutexLock lock(&mutex_);
  for (Gathering* const gathering : gatherings_) {
    if (gathering->job_id_ == job_id) gathering->ended_reason_ = reason;
  }
  changed_.NotifyAll();
}

void TraceCollector::Traced(const std::string& job_id, int stage, int replica,
                            const v1::StepTrace& trace) {
  MutexLock lock(&mutex_);
  for (Gathering* const gathering : gatherings_) {
    if (gathering->job_id_ != job_id) continue;
    gathering->num_spans_ += trace.spans_size();
    if (gathering->num_spans_ > kMaxSpans) continue;
    gathering->traces_.push_back({stage, replica, trace});
  }
  changed_.NotifyAll();
}

}  // namespace deltapipe
