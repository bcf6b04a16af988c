// MemoryJobStore: a JobStore that forgets everything with its process. For
// tests.
#ifndef DELTAPIPE_COORDINATOR_STORE_MEMORY_JOB_STORE_H_
#define DELTAPIPE_COORDINATOR_STORE_MEMORY_JOB_STORE_H_

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "coordinator/store/job_store.h"

namespace deltapipe {

class MemoryJobStore : public JobStore {
 public:
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

  /// Every Commit from now on fails with `error`, until it is OK again.
  void FailCommits(const absl::Status& error);

 private:
  struct Record {
    StoredJob stored;
    std::vector<v1::JobEvent> events;
    std::deque<StoredLogLine> logs;
  };

  Mutex mutex_;
  std::map<std::string, Record> jobs_ DP_GUARDED_BY(mutex_);
  std::map<std::string, std::string> ids_by_request_ DP_GUARDED_BY(mutex_);
  uint64_t last_generation_ DP_GUARDED_BY(mutex_) = 0;
  int64_t last_number_ DP_GUARDED_BY(mutex_) = 0;
  int64_t last_event_ DP_GUARDED_BY(mutex_) = 0;
  int64_t last_line_ DP_GUARDED_BY(mutex_) = 0;
  absl::Status commit_error_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_MEMORY_JOB_STORE_H_
