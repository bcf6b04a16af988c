#include "coordinator/background/log_book.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::Status LogBook::Append(const std::string& job_id, v1::LogLine line) {
  if (line.text().size() > kMaxLineBytes) {
    const size_t size = line.text().size();
    line.mutable_text()->resize(kMaxLineBytes);
    // A cut in the middle of a UTF-8 character would not be a proto string.
    while (!line.text().empty() &&
           (static_cast<unsigned char>(line.text().back()) & 0xC0) == 0x80) {
      line.mutable_text()->pop_back();
    }
    if (!line.text().empty() &&
        (static_cast<unsigned char>(line.text().back()) & 0x80) != 0) {
      line.mutable_text()->pop_back();
    }
    absl::StrAppend(line.mutable_text(), " [cut from ", size, " bytes]");
  }
  DP_RETURN_IF_ERROR(store_->AppendLogs(job_id, {std::move(line)}).status());
  Wake();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredLogLine>> LogBook::Read(
    const LogQuery& query) {
  return store_->ReadLogs(query);
}

int64_t LogBook::Revision() {
  MutexLock lock(&mutex_);
  return revision_;
}

void LogBook::Wake() {
  MutexLock lock(&mutex_);
  ++revision_;
  changed_.NotifyAll();
}

absl::Status LogBook::Await(int64_t seen, Deadline deadline) {
  MutexLock lock(&mutex_);
  changed_.WaitUntil(lock, deadline,
                     [&] { return revision_ != seen || is_closed_; });
  if (!is_closed_) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("the coordinator is shutting down: ", closed_reason_));
}

void LogBook::Close(const std::string& reason) {
  MutexLock lock(&mutex_);
  is_closed_ = true;
  closed_reason_ = reason;
  changed_.NotifyAll();
}

}  // namespace deltapipe
