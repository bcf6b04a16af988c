// WatchPosition: how far a watch of a job has come, over the streams that it
// consists of.
//
// JobClient::Watch shows it everything that a stream brings. It says from where
// the next stream has to begin when one has ended early, and what of that one
// is known already: nothing is passed on twice, and what was missed is noticed.
// Pure; used by one thread.
#ifndef DELTAPIPE_COORDINATOR_CLI_WATCH_POSITION_H_
#define DELTAPIPE_COORDINATOR_CLI_WATCH_POSITION_H_

#include <cstdint>

#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

enum class WatchedEvent {
  kNews,
  /// A step that does not follow on the last one: those between were made while
  /// nobody watched.
  kNewsAfterGap,
  /// A bookmark, or something that came before.
  kKnown,
};

class WatchPosition {
 public:
  explicit WatchPosition(int64_t after_sequence)
      : after_sequence_(after_sequence) {}

  /// What the next stream asks for.
  int64_t after_sequence() const { return after_sequence_; }

  /// Takes in what comes next. Steps, which have no sequence, may come again
  /// from a coordinator that was started anew, because it had not stored yet
  /// that its workers had made them. They count as known until the job goes on
  /// beyond them, or goes back: then they are made anew.
  WatchedEvent Add(const v1::JobEvent& event);
  /// The coordinator has gone; what is added from now on is of the next one.
  void BreakOff();

 private:
  WatchedEvent AddStep(int64_t step);

  int64_t after_sequence_;
  int64_t last_step_ = -1;       // -1: none, or the job has gone back since
  bool has_broken_off_ = false;  // since last_step_ came
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_WATCH_POSITION_H_
