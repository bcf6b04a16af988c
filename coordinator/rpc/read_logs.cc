#include "coordinator/rpc/read_logs.h"

#include <chrono>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"

namespace deltapipe {
namespace {

constexpr std::chrono::milliseconds kCancelInterval{500};

}  // namespace

absl::Status ReadLogs(ControlPlane* plane, const v1::ReadLogsRequest& request,
                      const std::function<bool(const v1::LogLine&)>& send,
                      const std::function<bool()>& is_cancelled) {
  if (request.tail() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("tail: expected 0 or more, got ", request.tail()));
  }
  LogQuery query;
  query.job_id = request.id();
  query.tail = request.tail();
  while (!is_cancelled()) {
    // The revision and the state are read first: lines that come later wake us.
    const int64_t revision = plane->logs()->Revision();
    DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
    for (;;) {
      DP_ASSIGN_OR_RETURN(const std::vector<StoredLogLine> lines,
                          plane->logs()->Read(query));
      query.tail = 0;
      for (const StoredLogLine& line : lines) {
        query.after_sequence = line.sequence;
        if (!send(line.line)) return absl::OkStatus();
      }
      if (lines.empty()) break;
    }
    if (!request.follow() || IsAtRest(stored.job.state())) break;
    DP_RETURN_IF_ERROR(
        plane->logs()->Await(revision, Deadline::After(kCancelInterval)));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
