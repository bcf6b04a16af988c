#include "worker/stragglers/fixed_policy.h"

namespace deltapipe {

FixedPolicy::FixedPolicy(const SyncPolicyOptions& options)
    : tau_seconds_(options.tau_seconds), admission_(options) {}

absl::Status FixedPolicy::BeginStep(const StepStart& start) {
  return admission_.BeginStep(start);
}

bool FixedPolicy::Admit(int microbatch, double elapsed_seconds) {
  return admission_.Admit(microbatch, elapsed_seconds, tau_seconds_);
}

absl::Status FixedPolicy::EndStep(const StepObservation& observation) {
  const int dropped = observation.num_planned() - observation.num_executed();
  admission_.Record(observation.step, dropped);
  num_planned_ += observation.num_planned();
  num_dropped_ += dropped;
  return absl::OkStatus();
}

StragglerGauges FixedPolicy::gauges() const {
  StragglerGauges gauges;
  gauges.state = StragglerState::kDropping;
  gauges.why = "tau is the user's";
  gauges.is_tau_enforced = !admission_.is_replay();
  gauges.tau_seconds = tau_seconds_;
  if (num_planned_ > 0) {
    gauges.realised_drop_share =
        static_cast<double>(num_dropped_) / static_cast<double>(num_planned_);
  }
  gauges.num_dropped = num_dropped_;
  return gauges;
}

}  // namespace deltapipe
