#include "coordinator/background/trace_turns.h"

#include <algorithm>

namespace deltapipe {

void TraceTurns::Begin(int num_ranks) {
  owner_ = TraceOwner::kNobody;
  left_.assign(static_cast<size_t>(num_ranks), 0);
}

void TraceTurns::Ask(TraceOwner owner, int steps, int64_t step, Nanos now) {
  owner_ = owner;
  left_.assign(left_.size(), steps);
  end_step_ = step + steps + kSlackSteps;
  end_time_ = now + kSlackTime;
}

TraceOwner TraceTurns::Take(int rank) {
  if (static_cast<size_t>(rank) >= left_.size()) return TraceOwner::kNobody;
  int& left = left_[static_cast<size_t>(rank)];
  if (left == 0) return TraceOwner::kNobody;
  --left;
  const TraceOwner owner = owner_;
  if (std::all_of(left_.begin(), left_.end(),
                  [](int steps) { return steps == 0; })) {
    owner_ = TraceOwner::kNobody;
  }
  return owner;
}

bool TraceTurns::Expire(int64_t step, Nanos now) {
  if (owner_ == TraceOwner::kNobody || step < end_step_ || now < end_time_) {
    return false;
  }
  Begin(static_cast<int>(left_.size()));
  return true;
}

}  // namespace deltapipe
