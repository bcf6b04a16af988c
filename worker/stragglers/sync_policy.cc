#include "worker/stragglers/sync_policy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/stragglers/adaptive_policy.h"
#include "worker/stragglers/fixed_policy.h"
#include "worker/stragglers/replay_list.h"

namespace deltapipe {
namespace {

/// Everything is executed, unless a step is done again.
class WholeStepsPolicy : public SyncPolicy {
 public:
  WholeStepsPolicy(std::string name, const SyncPolicyOptions& options)
      : name_(std::move(name)), rank_(options.rank), replay_(options.replay) {}

  absl::string_view name() const override { return name_; }

  absl::Status BeginStep(const StepStart& start) override {
    const absl::Status status = replay_.Check(start, rank_);
    if (!status.ok()) return status;
    const std::vector<int>* forced = replay_.Find(start.step);
    end_ = forced != nullptr ? (*forced)[rank_] : start.planned[rank_];
    return absl::OkStatus();
  }

  bool Admit(int microbatch, double /*elapsed_seconds*/) override {
    return microbatch < end_;
  }

  absl::Status EndStep(const StepObservation& observation) override {
    num_dropped_ += observation.num_planned() - observation.num_executed();
    return absl::OkStatus();
  }

  const RebalanceAdvice& advice() const override { return advice_; }

  StragglerGauges gauges() const override {
    StragglerGauges gauges;
    gauges.why = absl::StrCat("the policy is ", name_);
    gauges.num_dropped = num_dropped_;
    return gauges;
  }

 private:
  const std::string name_;
  const int rank_;
  const ReplayList replay_;
  const RebalanceAdvice advice_;
  int end_ = 0;
  int64_t num_dropped_ = 0;
};

absl::Status CheckOptions(const SyncPolicyOptions& options) {
  if (!(options.max_drop_share > 0 && options.max_drop_share <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the largest share to drop is ", options.max_drop_share,
                     ", expected more than 0 and at most 1"));
  }
  if (options.measured_steps < 40 ||
      options.retune_steps <= options.measured_steps) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.measured_steps, " measured steps and a decision every ",
        options.retune_steps,
        ": expected 40 or more, and decisions less often"));
  }
  if (!(options.tau_seconds >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tau is ", options.tau_seconds,
                     " s, expected more than 0, or 0 to find one"));
  }
  if (options.max_microbatches < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("at most ", options.max_microbatches,
                     " micro-batches of a replica, expected 1 or more, or 0 "
                     "for any number"));
  }
  if (options.rank < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("replica ", options.rank, " cannot be"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view StragglerStateName(StragglerState state) {
  switch (state) {
    case StragglerState::kOff:
      return "off";
    case StragglerState::kMeasuring:
      return "measuring";
    case StragglerState::kDropping:
      return "dropping";
    case StragglerState::kRebalancing:
      return "rebalancing";
  }
  return "";
}

absl::StatusOr<std::unique_ptr<SyncPolicy>> MakeSyncPolicy(
    absl::string_view name, const SyncPolicyOptions& options) {
  const absl::Status status = CheckOptions(options);
  if (!status.ok()) return status;
  if (name == "none" || name == "detect") {
    return {std::make_unique<WholeStepsPolicy>(std::string(name), options)};
  }
  if (name != "drop" && name != "rebalance" && name != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown straggler policy '", name,
                     "'; known are none, detect, drop, rebalance, auto"));
  }
  if (name == "drop" && options.tau_seconds > 0) {
    return {std::make_unique<FixedPolicy>(options)};
  }
  AdaptivePolicy::Remedies remedies;
  remedies.may_drop = name != "rebalance";
  remedies.may_rebalance = name != "drop";
  return {
      std::make_unique<AdaptivePolicy>(std::string(name), remedies, options)};
}

}  // namespace deltapipe
