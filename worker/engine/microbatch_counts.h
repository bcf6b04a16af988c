// MicrobatchCounts: how many micro-batches of a step each replica has, where
// they are moved from slow replicas to others (stragglers.policy: rebalance,
// auto).
//
// Every worker keeps the same ones. They change between two steps only: to what
// was told in the step before (Set), to what was recorded of a step that is
// done again, or back to the plan's number each if the policy may not move
// work. One thread.
//
//   counts.BeginStep(step, may_move);
//   ... counts.of(replica) micro-batches here; sum: replicas * nominal ...
//   DP_RETURN_IF_ERROR(counts.Set(told));  // before the next step
#ifndef DELTAPIPE_WORKER_ENGINE_MICROBATCH_COUNTS_H_
#define DELTAPIPE_WORKER_ENGINE_MICROBATCH_COUNTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

class MicrobatchCounts {
 public:
  /// Of the assignment's plan and executed steps. INVALID_ARGUMENT if it
  /// records what does not fit the plan: names the step.
  static absl::StatusOr<MicrobatchCounts> Create(
      const v1::Assignment& assignment);

  /// A step that is recorded takes what it had, and later ones keep that.
  /// Returns whether it is recorded.
  bool BeginStep(int64_t step, bool may_move);

  /// For the next step. INVALID_ARGUMENT, as for a checkpoint's (empty: the
  /// plan's), unless there is one for each replica, each
  /// in 1..max_microbatches, and they add up to what a step has.
  absl::Status Set(absl::Span<const int64_t> counts);

  /// By replica, of the step that began last, or what was set since.
  const std::vector<int>& all() const { return counts_; }
  int of(int replica) const { return counts_[static_cast<size_t>(replica)]; }
  bool are_nominal() const { return counts_ == nominal_; }
  /// Whether the plan lets them differ.
  bool has_room() const { return most_ > nominal_[0]; }

 private:
  MicrobatchCounts(int num_replicas, int nominal, int most)
      : nominal_(static_cast<size_t>(num_replicas), nominal),
        most_(most),
        counts_(nominal_) {}
  absl::StatusOr<std::vector<int>> Checked(
      absl::Span<const int64_t> counts) const;

  std::vector<int> nominal_;  // by replica
  int most_;
  std::vector<int> counts_;
  std::map<int64_t, std::vector<int>> recorded_;  // by step
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_MICROBATCH_COUNTS_H_
