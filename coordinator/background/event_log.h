// EventLog: stores a job's events and hands them, in order, to those who watch.
//
// Thread-safe. For one job, Record and Publish are called by one thread at a
// time (the job's own), which gives the order that watchers see. A watcher's
// queue is bounded: a reader that falls behind is cut with a reason and may
// watch again from the last sequence it saw.
//
//   events->Record({job.id(), job, std::nullopt, event});
//   auto watch = events->Subscribe("text-1", /*include_steps=*/true);
//   DP_ASSIGN_OR_RETURN(auto event, watch->Next(Deadline::After(...)));
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_EVENT_LOG_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_EVENT_LOG_H_

#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "coordinator/store/job_store.h"

namespace deltapipe {

class EventLog {
 public:
  static constexpr size_t kMaxQueuedEvents = 4096;

  class Subscription {
   public:
    ~Subscription();
    /// The next event, or none at the deadline. RESOURCE_EXHAUSTED: the reader
    /// fell behind and was cut. UNAVAILABLE: the coordinator is shutting down.
    absl::StatusOr<std::optional<v1::JobEvent>> Next(Deadline deadline);

   private:
    friend class EventLog;
    Subscription(EventLog* log, std::string job_id, bool include_steps)
        : log_(log),
          job_id_(std::move(job_id)),
          include_steps_(include_steps) {}
    EventLog* const log_;
    const std::string job_id_;
    const bool include_steps_;
    // Guarded by log_->mutex_.
    std::deque<v1::JobEvent> queue_;
    bool is_cut_ = false;
  };

  EventLog(JobStore* store, Clock* clock) : store_(store), clock_(clock) {}

  /// Stores the change, whose event gets the time, and publishes its event.
  /// The errors of JobStore::Commit; nothing is published then.
  absl::Status Record(JobChange change);
  /// Publishes an event that is not stored: its sequence is 0.
  void Publish(const std::string& job_id, v1::JobEvent event);
  /// Events from now on. The log outlives its subscriptions.
  std::unique_ptr<Subscription> Subscribe(const std::string& job_id,
                                          bool include_steps);
  /// Events that the slowest reader has yet to take; of one that is being cut,
  /// kMaxQueuedEvents.
  int64_t LongestQueue();
  /// Ends every subscription.
  void Close(const std::string& reason);

 private:
  JobStore* const store_;
  Clock* const clock_;
  Mutex mutex_;
  CondVar changed_;
  std::set<Subscription*> subscriptions_ DP_GUARDED_BY(mutex_);
  std::optional<std::string> closed_reason_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_EVENT_LOG_H_
