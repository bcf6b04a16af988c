#include "worker/stragglers/admission.h"

#include <numeric>

#include "base/status_macros.h"

namespace deltapipe {

Admission::Admission(const SyncPolicyOptions& options)
    : rank_(options.rank),
      replay_(options.replay),
      budget_(options.max_drop_share) {}

absl::Status Admission::BeginStep(const StepStart& start) {
  DP_RETURN_IF_ERROR(replay_.Check(start, rank_));
  planned_here_ = start.planned[static_cast<size_t>(rank_)];
  forced_ = replay_.Find(start.step);
  has_ended_ = false;
  const int num_planned =
      std::accumulate(start.planned.begin(), start.planned.end(), 0);
  may_drop_here_ = budget_.Begin(start.step, num_planned,
                                 static_cast<int>(start.planned.size()), rank_);
  if (forced_ != nullptr) {
    budget_.Record(
        start.step,
        num_planned - std::accumulate(forced_->begin(), forced_->end(), 0));
  }
  return absl::OkStatus();
}

bool Admission::Admit(int microbatch, double elapsed_seconds,
                      double tau_seconds) {
  if (forced_ != nullptr) {
    return microbatch < (*forced_)[static_cast<size_t>(rank_)];
  }
  if (has_ended_ || microbatch >= planned_here_) return false;
  if (microbatch == 0 || elapsed_seconds <= tau_seconds ||
      planned_here_ - microbatch > may_drop_here_) {
    return true;
  }
  has_ended_ = true;
  return false;
}

}  // namespace deltapipe
