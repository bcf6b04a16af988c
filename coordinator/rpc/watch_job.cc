#include "coordinator/rpc/watch_job.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
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

/// Sends a bookmark at once, then when its time has come.
class Bookmarks {
 public:
  Bookmarks(Clock* clock, Nanos interval, bool are_wanted)
      : clock_(clock), interval_(interval), are_wanted_(are_wanted) {
    next_ = clock_->Now();
  }

  /// None is due before; never later than kCancelInterval from now.
  Nanos Wait() const {
    if (!are_wanted_) return kCancelInterval;
    return std::clamp<Nanos>(next_ - clock_->Now(), Nanos(0), kCancelInterval);
  }

  /// False if `send` was called and returned false.
  bool SendIfDue(int64_t last,
                 const std::function<bool(const v1::JobEvent&)>& send) {
    if (!are_wanted_ || clock_->Now() < next_) return true;
    v1::JobEvent bookmark;
    bookmark.set_kind("bookmark");
    bookmark.set_sequence(last);
    bookmark.set_time_millis(clock_->WallMillis());
    const bool goes_on = send(bookmark);
    // A reader that was slow to take it gets the next one a whole interval
    // later.
    next_ = clock_->Now() + interval_;
    return goes_on;
  }

 private:
  Clock* const clock_;
  const Nanos interval_;
  const bool are_wanted_;
  Nanos next_{0};
};

}  // namespace

absl::Status WatchJob(ControlPlane* plane, const v1::WatchJobRequest& request,
                      const std::function<bool(const v1::JobEvent&)>& send,
                      const std::function<bool()>& is_cancelled,
                      const WatchOptions& options) {
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
  Bookmarks bookmarks(plane->clock(), options.bookmark_interval,
                      request.allow_bookmarks());
  if (!bookmarks.SendIfDue(last, send)) return absl::OkStatus();
  // An earlier rest is no end: the job may have been resumed since.
  DP_ASSIGN_OR_RETURN(const StoredJob stored, FindJob(plane, request.id()));
  if (IsAtRest(stored.job.state()) || request.stored_only()) {
    return absl::OkStatus();
  }
  while (!is_cancelled()) {
    DP_ASSIGN_OR_RETURN(const std::optional<v1::JobEvent> event,
                        subscription->Next(Deadline::After(bookmarks.Wait())));
    const bool is_news = event.has_value() &&
                         (event->sequence() == 0 || event->sequence() > last);
    if (is_news) {
      last = std::max(last, event->sequence());
      if (!send(*event) || IsFinal(*event)) return absl::OkStatus();
    }
    if (!bookmarks.SendIfDue(last, send)) return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
