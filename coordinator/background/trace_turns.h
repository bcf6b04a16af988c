// TraceTurns: whose the traces are that workers send.
//
// A StepTrace does not say who asked for it, and a worker remembers one
// request: so users and the sampling of stragglers take turns. A turn ends when
// every worker has sent what it was asked for; or, since a trace may get lost
// with a connection, when all have long done steps after those asked for.
//
// Of one job, on its thread; no I/O.
//
//   turns.Begin(num_ranks);
//   if (turns.owner() == TraceOwner::kNobody) turns.Ask(kSample, 2, step, now);
//   if (turns.Take(rank) == TraceOwner::kSample) ...
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_TRACE_TURNS_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_TRACE_TURNS_H_

#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace deltapipe {

enum class TraceOwner { kNobody, kUser, kSample };

class TraceTurns {
 public:
  /// Steps and time beyond those asked for after which what has not come was
  /// lost: a request may travel while many short steps are done.
  static constexpr int64_t kSlackSteps = 10;
  static constexpr Nanos kSlackTime = std::chrono::seconds(5);

  /// A generation begins: nothing has been asked for.
  void Begin(int num_ranks);

  /// All workers are asked now for `steps` steps, when `step` steps are done.
  /// Replaces what was asked for before, as it does on the workers.
  void Ask(TraceOwner owner, int steps, int64_t step, Nanos now);

  /// Whose turn it is.
  TraceOwner owner() const { return owner_; }

  /// A trace came from this rank: whose is it? kNobody: of no request known
  /// here. May end the turn.
  TraceOwner Take(int rank);

  /// `step` steps are done by all. True: the turn ended, incomplete.
  bool Expire(int64_t step, Nanos now);

 private:
  TraceOwner owner_ = TraceOwner::kNobody;
  std::vector<int> left_;  // by rank
  int64_t end_step_ = 0;
  Nanos end_time_{0};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_TRACE_TURNS_H_
