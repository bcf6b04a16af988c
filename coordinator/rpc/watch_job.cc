#include "coordinator/rpc/watch_job.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/status_macros.h"
#include "coordinator/rpc/find_job.h"

namespace deltapipe {
namespace {

constexpr int kEventsPerRead = 256;
constexpr std::chrono::milliseconds kCancelInterval{500};

bool IsFinal(const v1::JobEvent& event) {
  return event.kind() == "state" && IsAtRest(event.state());
}

}  // namespace

absl::Status WatchJob(ControlPlane* plane, const v1::WatchJobRequest& request,
                      const std::function<bool(const v1::JobEvent&)>& send,
                      const std::function<bool()>& is_cancelled) {
  if (request.after_sequence() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "after_sequence: expected 0 or more, got ", request.after_sequence()));
  }
  // Subscribing first leaves no gap; what comes twice is told by its sequence.
  const std::unique_ptr<EventLog::Subscription> subscription =
      plane->events()->Subscribe(request.id(), request.include_steps());
  DP_RETURN_IF_ERROR(FindJob(plane, request.id()).status());
  int64_t last = request.after_sequence();
  for (;;) {
    DP_ASSIGN_OR_RETURN(
        const std::vector<v1::JobEvent> events,
        plane->store()->ReadEvents(request.id(), last, kEventsPerRead));
    for (const v1::JobEvent& event : events) {
      last = event.sequence();
      if (!send(event)) return absl::OkStatus();
    }
    if (static_cast<int>(events.size()) < kEventsPerRead) break;
  }
  // An earlier rest is no end: the job may have been resumed since.
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  if (IsAtRest(stored.job.state()) || request.stored_only()) {
    return absl::OkStatus();
  }
  while (!is_cancelled()) {
    DP_ASSIGN_OR_RETURN(const std::optional<v1::JobEvent> event,
                        subscription->Next(Deadline::After(kCancelInterval)));
    if (!event.has_value()) continue;
    if (event->sequence() > 0) {
      if (event->sequence() <= last) continue;
      last = event->sequence();
    }
    if (!send(*event) || IsFinal(*event)) return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
