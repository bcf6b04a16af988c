// JobStore: what the coordinator must not forget: jobs, their plans, events and
// log lines, request ids, and the last generation given out.
//
// Implemented by SqliteJobStore (the real one) and MemoryJobStore (its fake);
// both pass job_store_test.cc. Thread-safe. What a call returned OK for
// survives kill -9 and power loss, log lines excepted: those survive kill -9
// only.
//
//   DP_ASSIGN_OR_RETURN(CreatedJob created, store->CreateJob(job));
//   JobChange change{id, job, plan, event};
//   DP_ASSIGN_OR_RETURN(int64_t sequence, store->Commit(change));
#ifndef DELTAPIPE_COORDINATOR_STORE_JOB_STORE_H_
#define DELTAPIPE_COORDINATOR_STORE_JOB_STORE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/store/job_state.h"
#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

struct NewJob {
  v1::JobSpec spec;
  /// A job with the same one is returned instead of created; empty: none.
  std::string request_id;
  /// Empty: below the folder of the worker that writes the model.
  std::string run_folder;
  /// Start from the newest checkpoint in the run folder, if there is one.
  bool resume = false;
  int64_t time_millis = 0;
  /// The text of the first event, of kind "state".
  std::string event_text;
};

struct CreatedJob {
  v1::Job job;
  /// The request id was known: `job` is the earlier job, nothing was created.
  bool is_duplicate = false;
};

struct StoredJob {
  v1::Job job;
  /// Counts jobs in the order of their creation.
  int64_t number = 0;
  std::optional<v1::Plan> plan = std::nullopt;
  std::optional<v1::JobProgress> progress = std::nullopt;
  /// StragglerMemoryText(); empty: nothing is known.
  std::string stragglers = {};
  /// TuningAnswers::Text(); empty: no request that had an id was answered.
  std::string tuning_answers = {};
};

/// What is stored in one transaction; absent parts stay as they are.
struct JobChange {
  std::string job_id;
  std::optional<v1::Job> job;
  std::optional<v1::Plan> plan;
  /// Appended; its sequence is given by the store.
  std::optional<v1::JobEvent> event;
  std::optional<v1::JobProgress> progress = std::nullopt;
  std::optional<std::string> stragglers = std::nullopt;
  std::optional<std::string> tuning_answers = std::nullopt;
};

struct JobQuery {
  /// Only jobs with a smaller number; 0: all.
  int64_t before_number = 0;
  int limit = 100;
  bool include_finished = true;
};

struct StoredLogLine {
  int64_t sequence = 0;
  v1::LogLine line;
};

struct LogQuery {
  std::string job_id;
  int64_t after_sequence = 0;
  int limit = 1000;
  /// Only the last `tail` lines of what matches; 0: from the beginning.
  int tail = 0;
};

class JobStore {
 public:
  /// Log lines kept per job; older ones are dropped, some 1,000 at a time.
  static constexpr int64_t kMaxLogLines = 20000;

  virtual ~JobStore() = default;

  // Every call that writes is ABORTED once another process has opened the same
  // store: it has taken over, and this one must not command anybody.

  /// A number larger than every one given out before, also by earlier
  /// processes.
  virtual absl::StatusOr<uint64_t> NewGeneration() = 0;
  /// Stores a PENDING job and its first event. Its id is NAME-N, N counting the
  /// jobs of the store.
  virtual absl::StatusOr<CreatedJob> CreateJob(const NewJob& job) = 0;
  /// The sequence of the change's event, 0 if it has none. Sequences rise over
  /// all jobs. NOT_FOUND: no such job; nothing is stored then.
  virtual absl::StatusOr<int64_t> Commit(const JobChange& change) = 0;
  /// NOT_FOUND: no such job.
  virtual absl::StatusOr<StoredJob> GetJob(const std::string& id) = 0;
  /// Newest first, with their number and job only.
  virtual absl::StatusOr<std::vector<StoredJob>> ListJobs(
      const JobQuery& query) = 0;
  /// In order of their sequence, at most `limit`.
  virtual absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(
      const std::string& job_id, int64_t after_sequence, int limit) = 0;
  /// Returns the sequence of the last line.
  virtual absl::StatusOr<int64_t> AppendLogs(
      const std::string& job_id, const std::vector<v1::LogLine>& lines) = 0;
  virtual absl::StatusOr<std::vector<StoredLogLine>> ReadLogs(
      const LogQuery& query) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_JOB_STORE_H_
