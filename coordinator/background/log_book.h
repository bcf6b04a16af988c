// LogBook: keeps the workers' log lines and wakes those who follow them.
//
// Thread-safe.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_LOG_BOOK_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_LOG_BOOK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "coordinator/store/job_store.h"

namespace deltapipe {

class LogBook {
 public:
  /// Longer lines are cut, which the line says.
  static constexpr size_t kMaxLineBytes = 64 << 10;

  explicit LogBook(JobStore* store) : store_(store) {}

  absl::Status Append(const std::string& job_id, v1::LogLine line);
  absl::StatusOr<std::vector<StoredLogLine>> Read(const LogQuery& query);
  /// Counts changes of all jobs' lines and states.
  int64_t Revision();
  /// Tells followers that something changed that they look at, such as a job's
  /// state.
  void Wake();
  /// Waits for a revision other than `seen`. UNAVAILABLE after Close; OK at the
  /// deadline too.
  absl::Status Await(int64_t seen, Deadline deadline);
  void Close(const std::string& reason);

 private:
  JobStore* const store_;
  Mutex mutex_;
  CondVar changed_;
  int64_t revision_ DP_GUARDED_BY(mutex_) = 0;
  bool is_closed_ DP_GUARDED_BY(mutex_) = false;
  std::string closed_reason_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_LOG_BOOK_H_
