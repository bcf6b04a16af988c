#include "coordinator/background/event_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::Status EventLog::Record(JobChange change) {
  if (change.event.has_value()) {
    change.event->set_time_millis(clock_->WallMillis());
  }
  DP_ASSIGN_OR_RETURN(const int64_t sequence, store_->Commit(change));
  if (change.event.has_value()) {
    change.event->set_sequence(sequence);
    Publish(change.job_id, *std::move(change.event));
  }
  return absl::OkStatus();
}

void EventLog::Publish(const std::string& job_id, v1::JobEvent event) {
  if (event.time_millis() == 0) event.set_time_millis(clock_->WallMillis());
  const bool is_step = event.kind() == "step";
  MutexLock lock(&mutex_);
  bool has_reader = false;
  for (Subscription* subscription : subscriptions_) {
    if (subscription->job_id_ != job_id || subscription->is_cut_) continue;
    if (is_step && !subscription->include_steps_) continue;
    has_reader = true;
    if (subscription->queue_.size() >= kMaxQueuedEvents) {
      subscription->queue_.clear();
      subscription->is_cut_ = true;
      continue;
    }
    subscription->queue_.push_back(event);
  }
  if (has_reader) changed_.NotifyAll();
}

std::unique_ptr<EventLog::Subscription> EventLog::Subscribe(
    const std::string& job_id, bool include_steps) {
  std::unique_ptr<Subscription> subscription(
      new Subscription(this, job_id, include_steps));
  MutexLock lock(&mutex_);
  subscriptions_.insert(subscription.get());
  return subscription;
}

int64_t EventLog::LongestQueue() {
  MutexLock lock(&mutex_);
  size_t longest = 0;
  for (const Subscription* subscription : subscriptions_) {
    longest =
        std::max(longest, subscription->is_cut_ ? kMaxQueuedEvents
                                                : subscription->queue_.size());
  }
  return static_cast<int64_t>(longest);
}

void EventLog::Close(const std::string& reason) {
  MutexLock lock(&mutex_);
  closed_reason_ = reason;
  changed_.NotifyAll();
}

EventLog::Subscription::~Subscription() {
  MutexLock lock(&log_->mutex_);
  log_->subscriptions_.erase(this);
}

absl::StatusOr<std::optional<v1::JobEvent>> EventLog::Subscription::Next(
    Deadline deadline) {
  MutexLock lock(&log_->mutex_);
  const bool is_ready = log_->changed_.WaitUntil(lock, deadline, [this] {
    return !queue_.empty() || is_cut_ || log_->closed_reason_.has_value();
  });
  if (is_cut_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the watch was cut: its reader fell more than ", kMaxQueuedEvents,
        " events behind; watch again after the last sequence it got"));
  }
  if (!queue_.empty()) {
    v1::JobEvent event = std::move(queue_.front());
    queue_.pop_front();
    return std::optional<v1::JobEvent>(std::move(event));
  }
  if (!is_ready) return std::optional<v1::JobEvent>();
  return absl::UnavailableError(absl::StrCat(
      "the coordinator is shutting down: ", *log_->closed_reason_));
}

}  // namespace deltapipe
