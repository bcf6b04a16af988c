// What each straggler policy of a job spec (stragglers.policy) may do: none,
// detect, drop, rebalance, auto. For those who plan for it and those who do it.
#ifndef DELTAPIPE_BASE_STRAGGLER_POLICY_H_
#define DELTAPIPE_BASE_STRAGGLER_POLICY_H_

#include "absl/strings/string_view.h"

namespace deltapipe {

/// Late replicas may leave out the last micro-batches of a step.
inline bool MayDropWork(absl::string_view policy) {
  return policy == "drop" || policy == "auto";
}

/// Micro-batches may move from one replica to another between steps.
inline bool MayMoveWork(absl::string_view policy) {
  return policy == "rebalance" || policy == "auto";
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_STRAGGLER_POLICY_H_
