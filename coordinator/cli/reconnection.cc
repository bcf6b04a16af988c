#include "coordinator/cli/reconnection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace deltapipe {

Reconnection::Reconnection(ReconnectionOptions options)
    : options_(std::move(options)) {}

void Reconnection::OnAnswer() {
  has_answered_ = true;
  if (!is_away_) return;
  is_away_ = false;
  options_.tell(absl::StrCat("coordinator at ", options_.address, " is back"));
}

absl::StatusOr<Nanos> Reconnection::OnFailure(const absl::Status& error) {
  if (!absl::IsUnavailable(error) || !has_answered_ ||
      options_.limit <= Nanos(0)) {
    return error;
  }
  const Nanos now = options_.clock->Now();
  if (!is_away_) {
    is_away_ = true;
    away_since_ = now;
    pause_ = kFirstPause;
    options_.tell(absl::StrCat("coordinator at ", options_.address,
                               " is gone; trying again for ",
                               FormatDuration(options_.limit)));
  }
  // As a duration: the limit may be near the clock's end.
  const Nanos left = options_.limit - (now - away_since_);
  if (left <= Nanos(0)) {
    return Annotate(
        error,
        absl::StrCat("the coordinator did not come back within ",
                     FormatDuration(options_.limit), " (--reconnect-for)"));
  }
  const Nanos when = now + std::min(pause_, left);
  pause_ = std::min(2 * pause_, kLongestPause);
  return when;
}

}  // namespace deltapipe
