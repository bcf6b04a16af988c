#include "worker/engine/straggler_control.h"

#include <cmath>
#include <utility>

#include "base/status_macros.h"
#include "base/units.h"

namespace deltapipe {
namespace {

double FiniteOrZero(double value) { return std::isfinite(value) ? value : 0; }

}  // namespace

absl::StatusOr<std::unique_ptr<StragglerControl>> StragglerControl::Create(
    const std::string& policy, const v1::Assignment& assignment, int replica) {
  const v1::StragglerSpec& spec = assignment.spec().stragglers();
  SyncPolicyOptions options;
  options.rank = replica;
  options.max_drop_share = spec.max_drop_rate();
  options.retune_steps = spec.retune_steps();
  if (spec.tau() != "auto") {
    DP_ASSIGN_OR_RETURN(const auto tau, ParseDuration(spec.tau()));
    options.tau_seconds = std::chrono::duration<double>(tau).count();
  }
  for (const v1::ExecutedStep& step : assignment.executed()) {
    options.replay.push_back(
        {step.step(),
         {step.microbatches().begin(), step.microbatches().end()}});
  }
  DP_ASSIGN_OR_RETURN(std::unique_ptr<SyncPolicy> made,
                      MakeSyncPolicy(policy, options));
  const v1::Plan& plan = assignment.plan();
  return std::unique_ptr<StragglerControl>(new StragglerControl(
      std::move(made), plan.num_replicas(), plan.num_microbatches()));
}

double StragglerControl::Elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                       begin_)
      .count();
}

absl::Status StragglerControl::BeginStep(int64_t step, uint32_t revision) {
  begin_ = std::chrono::steady_clock::now();
  step_ = step;
  present_ = ReplicaObservation();
  present_.planned = num_microbatches_;
  StepStart start;
  start.step = step;
  start.plan_revision = revision;
  start.planned.assign(static_cast<size_t>(num_replicas_), num_microbatches_);
  return policy_->BeginStep(start);
}

bool StragglerControl::Admit(int microbatch) {
  const double elapsed = Elapsed();
  present_.ready_seconds.push_back(elapsed);
  return policy_->Admit(microbatch, elapsed);
}

void StragglerControl::NoteDone(int microbatch) {
  present_.done_seconds.resize(static_cast<size_t>(microbatch) + 1);
  present_.done_seconds[static_cast<size_t>(microbatch)] = Elapsed();
}

void StragglerControl::EndStep(int executed) {
  present_.executed = executed;
  present_.step_seconds = Elapsed();
  last_ = std::move(present_);
  last_step_ = step_;
}

std::vector<double> StragglerControl::figures() const {
  std::vector<double> values(ObservationDoubles(num_microbatches_));
  if (last_step_ >= 0) EncodeObservation(last_, absl::MakeSpan(values));
  return values;
}

absl::Status StragglerControl::Observe(
    absl::Span<const std::vector<double>> by_replica) {
  if (last_step_ < 0) return absl::OkStatus();
  StepObservation observation;
  observation.step = last_step_;
  for (const std::vector<double>& values : by_replica) {
    DP_ASSIGN_OR_RETURN(ReplicaObservation replica, DecodeObservation(values));
    observation.replicas.push_back(std::move(replica));
  }
  last_step_ = -1;
  return policy_->EndStep(observation);
}

v1::StragglerReport StragglerControl::report() const {
  const StragglerGauges gauges = policy_->gauges();
  v1::StragglerReport report;
  report.set_tau_seconds(FiniteOrZero(gauges.tau_seconds));
  report.set_predicted_drop_share(gauges.predicted_drop_share);
  report.set_realised_drop_share(FiniteOrZero(gauges.realised_drop_share));
  report.set_predicted_speedup(gauges.predicted_speedup);
  report.set_realised_speedup(FiniteOrZero(gauges.realised_speedup));
  report.set_state(
      absl::StrCat(StragglerStateName(gauges.state), ": ", gauges.why));
  return report;
}

}  // namespace deltapipe
