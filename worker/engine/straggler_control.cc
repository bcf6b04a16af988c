#include "worker/engine/straggler_control.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/straggler_policy.h"
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
  const v1::Plan& plan = assignment.plan();
  const int most = std::max(plan.num_microbatches(), plan.max_microbatches());
  options.max_microbatches = most;
  for (const v1::ExecutedStep& step : assignment.executed()) {
    options.replay.push_back(
        {step.step(),
         {step.microbatches().begin(), step.microbatches().end()}});
  }
  DP_ASSIGN_OR_RETURN(std::unique_ptr<SyncPolicy> made,
                      MakeSyncPolicy(policy, options));
  return std::unique_ptr<StragglerControl>(new StragglerControl(
      std::move(made), replica, plan.num_replicas(), most));
}

double StragglerControl::Elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                       begin_)
      .count();
}

absl::Status StragglerControl::BeginStep(int64_t step, uint32_t revision,
                                         const std::vector<int>& counts) {
  begin_ = std::chrono::steady_clock::now();
  step_ = step;
  present_ = ReplicaObservation();
  present_.planned = counts[static_cast<size_t>(replica_)];
  counts_ = counts;
  StepStart start;
  start.step = step;
  start.plan_revision = revision;
  start.planned = counts;
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
  const size_t num_observed = ObservationDoubles(max_microbatches_);
  std::vector<double> values(num_observed + static_cast<size_t>(num_replicas_));
  if (last_step_ >= 0) {
    EncodeObservation(last_, absl::MakeSpan(values).first(num_observed));
  }
  const std::vector<int>& advised = policy_->advice().counts;
  if (advised.size() == counts_.size() && advised != counts_) {
    std::copy(advised.begin(), advised.end(),
              values.begin() + static_cast<long>(num_observed));
  }
  return values;
}

absl::Status StragglerControl::Observe(
    absl::Span<const std::vector<double>> by_replica) {
  next_counts_.clear();
  if (last_step_ < 0) return absl::OkStatus();
  const size_t num_observed = ObservationDoubles(max_microbatches_);
  const auto advised = by_replica[0].begin() + static_cast<long>(num_observed);
  if (*advised > 0) {
    next_counts_.assign(advised, by_replica[0].end());
    advised_by_ = policy_->advice().rank;
    advice_ = policy_->advice().why;
  }
  StepObservation observation;
  observation.step = last_step_;
  for (const std::vector<double>& values : by_replica) {
    DP_ASSIGN_OR_RETURN(
        ReplicaObservation replica,
        DecodeObservation(absl::MakeConstSpan(values).first(num_observed)));
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
  report.set_state(absl::StrCat(StragglerStateName(gauges.state),
                                gauges.why.empty() ? "" : ": ", gauges.why));
  if (MayMoveWork(policy_->name())) {
    *report.mutable_counts() = {counts_.begin(), counts_.end()};
  }
  return report;
}

}  // namespace deltapipe
