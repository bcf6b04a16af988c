#include "worker/engine/microbatch_counts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::StatusOr<MicrobatchCounts> MicrobatchCounts::Create(
    const v1::Assignment& assignment) {
  const v1::Plan& plan = assignment.plan();
  MicrobatchCounts made(
      plan.num_replicas(), plan.num_microbatches(),
      std::max(plan.num_microbatches(), plan.max_microbatches()));
  for (const v1::ExecutedStep& step : assignment.executed()) {
    auto counts = made.Checked(std::vector<int64_t>(step.planned().begin(),  //
                                                    step.planned().end()));
    if (!counts.ok()) {
      return Annotate(counts.status(),
                      absl::StrCat("what is recorded of step ", step.step()));
    }
    made.recorded_[step.step()] = *std::move(counts);
  }
  return made;
}

absl::StatusOr<std::vector<int>> MicrobatchCounts::Checked(
    absl::Span<const int64_t> counts) const {
  if (counts.empty()) return nominal_;
  const int64_t expected =
      static_cast<int64_t>(nominal_.size()) * int64_t{nominal_[0]};
  int64_t total = 0;
  bool fits = counts.size() == nominal_.size();
  for (const int64_t count : counts) {
    fits = fits && count >= 1 && count <= most_;
    total += fits ? count : 0;
  }
  if (fits && total == expected) {
    return std::vector<int>(counts.begin(), counts.end());
  }
  return absl::InvalidArgumentError(
      absl::StrCat("micro-batches by replica: expected ", nominal_.size(),
                   " numbers from 1 to ", most_, " with the sum ", expected,
                   ", got ", absl::StrJoin(counts, ", ")));
}

bool MicrobatchCounts::BeginStep(int64_t step, bool may_move) {
  const auto found = recorded_.find(step);
  if (found != recorded_.end()) {
    counts_ = found->second;
    return true;
  }
  if (!may_move) counts_ = nominal_;
  return false;
}

absl::Status MicrobatchCounts::Set(absl::Span<const int64_t> counts) {
  DP_ASSIGN_OR_RETURN(counts_, Checked(counts));
  return absl::OkStatus();
}

}  // namespace deltapipe
