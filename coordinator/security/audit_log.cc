#include "coordinator/security/audit_log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/tls/certificate.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

constexpr int64_t kMinuteMillis = 60'000;
constexpr size_t kMaxText = 500;

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(
    const std::string& folder, Clock* clock) {
  const std::string path = folder + "/audit.ndjson";
  const int fd =
      open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("append to", path, errno);
  return std::unique_ptr<AuditLog>(new AuditLog(fd, path, clock));
}

AuditLog::~AuditLog() { close(fd_); }

int64_t AuditLog::Admit(const AuditEntry& entry) {
  const int64_t minute = clock_->WallMillis() / kMinuteMillis;
  if (minute != minute_) {
    minute_ = minute;
    refusals_in_minute_ = 0;
  }
  if (entry.is_refusal && ++refusals_in_minute_ > kRefusalsPerMinute) {
    ++left_out_;
    return -1;
  }
  const int64_t before = left_out_;
  left_out_ = 0;
  return before;
}

void AuditLog::Add(const AuditEntry& entry) {
  int64_t left_out = 0;
  {
    MutexLock lock(&mutex_);
    left_out = Admit(entry);
  }
  if (left_out < 0) return;
  nlohmann::ordered_json line;
  line["time"] = UtcText(clock_->WallMillis());
  line["time_millis"] = clock_->WallMillis();
  line["who"] = entry.who;
  line["from"] = entry.from;
  line["what"] = entry.what;
  if (!entry.object.empty()) line["object"] = entry.object.substr(0, kMaxText);
  line["result"] = entry.result;
  if (!entry.reason.empty()) line["reason"] = entry.reason.substr(0, kMaxText);
  if (left_out > 0) line["refusals_left_out"] = left_out;
  const std::string text =
      line.dump(-1, ' ', true,
                nlohmann::ordered_json::error_handler_t::replace) +
      "\n";
  // One call, so that lines of several threads do not mix.
  const ssize_t written = write(fd_, text.data(), text.size());
  const int error = written < 0 ? errno : ENOSPC;
  const bool has_failed = written != static_cast<ssize_t>(text.size());
  bool must_log = false;
  {
    MutexLock lock(&mutex_);
    must_log = has_failed && !is_failing_;
    is_failing_ = has_failed;
  }
  if (must_log) {
    LOG_ERROR << "the audit log loses lines: "
              << FileError("append to", path_, error).message();
  }
}

}  // namespace deltapipe
