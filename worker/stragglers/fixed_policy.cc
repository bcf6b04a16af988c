#include "worker/stragglers/fixed_policy.h"

#include <algorithm>
#include <numeric>

#include "base/status_macros.h"

namespace deltapipe {

FixedPolicy::FixedPolicy(const SyncPolicyOptions& options)
    : rank_(options.rank),
      tau_seconds_(options.tau_seconds),
      replay_(options.replay),
      budget_(options.max_drop_share) {}

absl::Status FixedPolicy::BeginStep(const StepStart& start) {
  DP_RETURN_IF_ERROR(replay_.Check(start, rank_));
  const int num_planned =
      std::accumulate(start.planned.begin(), start.planned.end(), 0);
  const int planned_here = start.planned[static_cast<size_t>(rank_)];
  const int64_t part = budget_.Begin(
      start.step, num_planned, static_cast<int>(start.planned.size()), rank_);
  forced_ = replay_.Find(start.step);
  if (forced_ != nullptr) {
    budget_.Record(
        start.step,
        num_planned - std::accumulate(forced_->begin(), forced_->end(), 0));
  }
  least_ = std::max<int64_t>(1, planned_here - part);
  has_ended_ = false;
  return absl::OkStatus();
}

bool FixedPolicy::Admit(int microbatch, double elapsed_seconds) {
  if (forced_ != nullptr) {
    return microbatch < (*forced_)[static_cast<size_t>(rank_)];
  }
  has_ended_ =
      has_ended_ || (microbatch >= least_ && elapsed_seconds > tau_seconds_);
  return !has_ended_;
}

absl::Status FixedPolicy::EndStep(const StepObservation& observation) {
  const int dropped = observation.num_planned() - observation.num_executed();
  budget_.Record(observation.step, dropped);
  num_planned_ += observation.num_planned();
  num_dropped_ += dropped;
  return absl::OkStatus();
}

StragglerGauges FixedPolicy::gauges() const {
  StragglerGauges gauges;
  gauges.state = StragglerState::kDropping;
  gauges.why = "tau is the user's";
  gauges.is_tau_enforced = forced_ == nullptr;
  gauges.tau_seconds = tau_seconds_;
  if (num_planned_ > 0) {
    gauges.realised_drop_share =
        static_cast<double>(num_dropped_) / static_cast<double>(num_planned_);
  }
  gauges.num_dropped = num_dropped_;
  return gauges;
}

}  // namespace deltapipe
