// ReplayList: what was executed in steps that are done again.
//
// Immutable, thread-safe.
#ifndef DELTAPIPE_WORKER_STRAGGLERS_REPLAY_LIST_H_
#define DELTAPIPE_WORKER_STRAGGLERS_REPLAY_LIST_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {

class ReplayList {
 public:
  /// A step that is named twice: the later entry holds.
  explicit ReplayList(std::vector<ReplayedStep> steps) {
    for (ReplayedStep& step : steps) {
      executed_[step.step] = std::move(step.executed);
    }
  }

  /// Executed micro-batches by rank; null if the step is not a replay.
  const std::vector<int>* Find(int64_t step) const {
    const auto found = executed_.find(step);
    return found == executed_.end() ? nullptr : &found->second;
  }

  /// INVALID_ARGUMENT if the start has no entry for `rank`, a replica has no
  /// micro-batch, or the step is a replay with another number of replicas.
  absl::Status Check(const StepStart& start, int rank) const {
    if (rank >= static_cast<int>(start.planned.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("step ", start.step, " has ", start.planned.size(),
                       " replicas, this is replica ", rank));
    }
    for (size_t replica = 0; replica < start.planned.size(); ++replica) {
      if (start.planned[replica] >= 1) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "step ", start.step, " plans ", start.planned[replica],
          " micro-batches for replica ", replica, ", expected 1 or more"));
    }
    const std::vector<int>* executed = Find(start.step);
    if (executed != nullptr && executed->size() != start.planned.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "step ", start.step, " has ", start.planned.size(),
          " replicas, but had ", executed->size(), " when it was first done"));
    }
    return absl::OkStatus();
  }

 private:
  std::map<int64_t, std::vector<int>> executed_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_REPLAY_LIST_H_
