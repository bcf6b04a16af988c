// SqliteJobStore: the JobStore on disk.
//
// WAL mode. State changes are synced before they are acknowledged
// (synchronous=FULL); log lines go over a second connection that is not. One
// process at a time: a lock file beside the store, gone once it is closed,
// refuses the second one.
// Refuses a store written by a later schema. An absl::StatusOr error never
// leaves half a change behind.
#ifndef DELTAPIPE_COORDINATOR_STORE_SQLITE_JOB_STORE_H_
#define DELTAPIPE_COORDINATOR_STORE_SQLITE_JOB_STORE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "coordinator/store/job_store.h"
#include "coordinator/store/sqlite.h"

namespace deltapipe {

class SqliteJobStore : public JobStore {
 public:
  static constexpr int kSchemaVersion = 4;

  /// Creates the file if it is not there. INVALID_ARGUMENT: it is a folder, or
  /// a file that is no database. NOT_FOUND: its folder is missing.
  /// FAILED_PRECONDITION: another coordinator uses it (names its pid), or a
  /// later version wrote it. PERMISSION_DENIED, DATA_LOSS: as
  /// SqliteDatabase::Open. What is refused is left as it was.
  ///
  /// `on_taken_over` (may be null) is called once, when a write finds that
  /// another coordinator has opened the store; from the writing thread, under a
  /// lock: it must not call the store.
  static absl::StatusOr<std::unique_ptr<SqliteJobStore>> Open(
      const std::string& path,
      std::function<void(const absl::Status&)> on_taken_over = nullptr);
  ~SqliteJobStore() override;

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

 private:
  SqliteJobStore(std::string lock_path, int lock_file,
                 std::function<void(const absl::Status&)> on_taken_over)
      : lock_path_(std::move(lock_path)),
        lock_file_(lock_file),
        on_taken_over_(std::move(on_taken_over)) {}
  absl::Status Prepare(const std::string& path);
  /// Brings a store of an earlier schema up to this one.
  absl::Status Migrate(int64_t version) DP_REQUIRES(mutex_);
  /// Within a transaction that writes. ABORTED.
  absl::Status CheckEpoch() DP_REQUIRES(mutex_);
  absl::StatusOr<int64_t> InsertEvent(const std::string& job_id,
                                      const v1::JobEvent& event)
      DP_REQUIRES(mutex_);
  absl::StatusOr<int64_t> NumberOf(const std::string& id) DP_REQUIRES(mutex_);
  absl::StatusOr<StoredJob> FindJob(const std::string& column,
                                    const std::string& value)
      DP_REQUIRES(mutex_);

  const std::string lock_path_;
  const int lock_file_;
  // A connection serves one thread at a time, so these locks are held over its
  // I/O. Never both at once.
  Mutex mutex_;
  std::function<void(const absl::Status&)> on_taken_over_
      DP_GUARDED_BY(mutex_);  // null once called
  std::unique_ptr<SqliteDatabase> database_ DP_GUARDED_BY(mutex_);
  int64_t epoch_ DP_GUARDED_BY(mutex_) = 0;  // how often it was opened
  Mutex log_mutex_;
  std::unique_ptr<SqliteDatabase> log_database_ DP_GUARDED_BY(log_mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_SQLITE_JOB_STORE_H_
