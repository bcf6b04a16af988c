// AuditLog: who asked for what, when, and what came of it: one JSON object a
// line, appended to `audit.ndjson` in the security folder (0600), never
// rewritten.
//
// Calls that change something are in it with their results, and so is every
// refusal; calls that only read are not. A flood of refusals is cut to 600
// lines a minute, and the next line after it says how many are missing.
// Thread-safe. An error of the disk is logged, once until a line is written
// again: it does not stop the call.
#ifndef DELTAPIPE_COORDINATOR_SECURITY_AUDIT_LOG_H_
#define DELTAPIPE_COORDINATOR_SECURITY_AUDIT_LOG_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"

namespace deltapipe {

struct AuditEntry {
  std::string who;     // "alice (operator, 3f9c2a1b)", "worker-3", "nobody"
  std::string from;    // "10.77.0.2"
  std::string what;    // "JobService.CancelJob"
  std::string object;  // what it was done to, such as a job's id; may be empty
  std::string result;  // "OK", "PERMISSION_DENIED"
  std::string reason;  // of a refusal; never a secret
  bool is_refusal = false;
};

class AuditLog {
 public:
  static constexpr int kRefusalsPerMinute = 600;

  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(
      const std::string& folder, Clock* clock);
  ~AuditLog();

  void Add(const AuditEntry& entry);

 private:
  AuditLog(int fd, std::string path, Clock* clock)
      : fd_(fd), path_(std::move(path)), clock_(clock) {}
  /// The number of refusals left out before this line, or -1 to leave out this
  /// one, too.
  int64_t Admit(const AuditEntry& entry) DP_REQUIRES(mutex_);

  const int fd_;
  const std::string path_;
  Clock* const clock_;
  Mutex mutex_;
  int64_t minute_ DP_GUARDED_BY(mutex_) = -1;
  int refusals_in_minute_ DP_GUARDED_BY(mutex_) = 0;
  int64_t left_out_ DP_GUARDED_BY(mutex_) = 0;
  bool is_failing_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SECURITY_AUDIT_LOG_H_
