// What each straggler policy of a job spec (stragglers.policy) may do: none,
// detect, drop, rebalance, auto. For those who plan for it and those who do it.
#ifndef DELTAPIPE_BASE_STRAGGLER_POLICY_H_
#define DELTAPIPE_BASE_STRAGGLER_POLICY_H_

#include <algorithm>
#include <cstdint>

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

/// The most micro-batches that a replica is given where they may move, of
/// replicas that have `nominal` each: half as many again, so that one of two
/// may be three times as slow; but each of the others keeps one. Both arguments
/// are 1 or more.
inline int MostMicrobatches(int nominal, int num_replicas) {
  const int64_t half_more = nominal + (int64_t{nominal} + 1) / 2;
  const int64_t all_but_one_each =
      nominal + (int64_t{num_replicas} - 1) * (nominal - 1);
  return static_cast<int>(
      std::min({half_more, all_but_one_each, int64_t{INT32_MAX}}));
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_STRAGGLER_POLICY_H_
