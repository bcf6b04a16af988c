// TimedJobStore: a JobStore that measures how long another's transactions take.
//
// Thread-safe if the other is. Timed are calls that commit what must survive:
// NewGeneration, CreateJob, Commit; those that fail, too.
#ifndef DELTAPIPE_COORDINATOR_STORE_TIMED_JOB_STORE_H_
#define DELTAPIPE_COORDINATOR_STORE_TIMED_JOB_STORE_H_

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "coordinator/store/job_store.h"

namespace deltapipe {

class TimedJobStore : public JobStore {
 public:
  /// `clock` outlives this.
  TimedJobStore(std::unique_ptr<JobStore> store, Clock* clock);

  absl::StatusOr<uint64_t> NewGeneration() override;
  absl::StatusOr<CreatedJob> CreateJob(const NewJob& job) override;
  absl::StatusOr<int64_t> Commit(const JobChange& change) override;
  absl::StatusOr<StoredJob> GetJob(const std::string& id) override;
  absl::StatusOr<std::vector<StoredJob>> ListJobs(
      const JobQuery& query) override;
  absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(
      const std::string& job_id, int64_t after_sequence, int limit) override;
  absl::StatusOr<int64_t> AppendLogs(
      const std::string& job_id,
      const std::vector<v1::LogLine>& lines) override;
  absl::StatusOr<std::vector<StoredLogLine>> ReadLogs(
      const LogQuery& query) override;

  /// Seconds, since this was made.
  v1::Histogram commit_seconds();

 private:
  /// Of a call that began then.
  void Note(Nanos begin);

  const std::unique_ptr<JobStore> store_;
  Clock* const clock_;
  Mutex mutex_;
  v1::Histogram commit_seconds_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_TIMED_JOB_STORE_H_
