// Reconnection: how a verb that follows a job waits for a coordinator that has
// gone away: when it tries again, how long it goes on, and what it says.
//
// The verb, or JobClient::Watch for it, makes the calls and does the waiting;
// this only decides. A coordinator that has never answered is not waited for:
// its address is more likely wrong. Used by one thread.
//
//   for (;;) {
//     const auto metrics = client.GetMetrics(job);
//     if (metrics.ok()) reconnection.OnAnswer();
//     ...
//     DP_ASSIGN_OR_RETURN(const Nanos when,
//                         reconnection.OnFailure(metrics.status()));
//     clock->SleepUntil(when, &stopped);
//   }
#ifndef DELTAPIPE_COORDINATOR_CLI_RECONNECTION_H_
#define DELTAPIPE_COORDINATOR_CLI_RECONNECTION_H_

#include <chrono>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"

namespace deltapipe {

struct ReconnectionOptions {
  std::string address;  // of the coordinator, for what is said
  /// From the first failure on; 0: the first failure is the end.
  Nanos limit = std::chrono::seconds(60);
  /// Gets "coordinator at ADDRESS is gone; trying again for 1 min" and
  /// "coordinator at ADDRESS is back", once for each time that it goes.
  std::function<void(const std::string& line)> tell;
  Clock* clock = Clock::Real();  // borrowed
};

class Reconnection {
 public:
  /// Between two tries, from the first on; each pause is twice the one before.
  static constexpr Nanos kFirstPause = std::chrono::milliseconds(250);
  static constexpr Nanos kLongestPause = std::chrono::seconds(4);

  explicit Reconnection(ReconnectionOptions options);

  /// The coordinator has answered a call, or sent something on a stream.
  void OnAnswer();
  /// A call or stream has ended with `error`. Returns when to try again, on the
  /// clock, the last time at the very limit; or what to give up with: `error`
  /// itself unless it is UNAVAILABLE and there was an answer before, and
  /// UNAVAILABLE, with `error` in it, when the limit has passed.
  absl::StatusOr<Nanos> OnFailure(const absl::Status& error);

  /// From a failure until the next answer.
  bool is_away() const { return is_away_; }
  Clock* clock() const { return options_.clock; }

 private:
  const ReconnectionOptions options_;
  bool has_answered_ = false;
  bool is_away_ = false;
  Nanos away_since_{0};
  Nanos pause_{0};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_RECONNECTION_H_
