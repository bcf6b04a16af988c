#include "worker/stragglers/drop_planner.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

absl::Status CheckSteps(absl::Span<const StepObservation> steps) {
  if (steps.empty()) {
    return absl::FailedPreconditionError("no steps to plan from");
  }
  for (const StepObservation& step : steps) {
    if (step.replicas.empty() ||
        step.replicas.size() != steps[0].replicas.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "step ", step.step, " has ", step.replicas.size(), " replicas, step ",
          steps[0].step, " has ", steps[0].replicas.size()));
    }
    for (const ReplicaObservation& replica : step.replicas) {
      if (replica.is_cut() || replica.executed == 0 ||
          replica.ready_seconds.size() < replica.executed ||
          replica.done_seconds.size() < replica.executed) {
        return absl::FailedPreconditionError(
            absl::StrCat("step ", step.step,
                         " was cut: only whole steps can be planned "
                         "from"));
      }
    }
  }
  return absl::OkStatus();
}

/// All figures for the thresholds from the smallest up: at first each replica
/// keeps its first micro-batch; Admit adds them in the order of their ready
/// times.
class Sweep {
 public:
  Sweep(absl::Span<const StepObservation> steps, double max_replica_cut_share)
      : num_steps_(static_cast<double>(steps.size())),
        max_replica_cuts_(max_replica_cut_share * num_steps_),
        replica_cuts_(steps[0].replicas.size(), 0) {
    double uncut = 0, rest = 0, drain = 0;
    for (const StepObservation& step : steps) {
      double first = 0, last = 0;
      for (size_t r = 0; r < step.replicas.size(); ++r) {
        const ReplicaObservation& replica = step.replicas[r];
        const int planned = replica.planned;
        first = std::max(first, replica.done_seconds[0]);
        last = std::max(last, replica.done_seconds[planned - 1]);
        for (int m = 1; m < planned; ++m) {
          injections_.push_back(
              {replica.ready_seconds[m], replica.done_seconds[m],
               static_cast<int32_t>(finish_.size()),
               m + 1 == planned ? static_cast<int32_t>(r) : kNotLast});
          drain += replica.done_seconds[m - 1] - replica.ready_seconds[m];
        }
        num_planned_ += planned;
        num_cut_ += planned > 1 ? 1 : 0;
        replica_cuts_[r] += planned > 1 ? 1 : 0;
        ++num_kept_;
        ++num_replica_steps_;
      }
      finish_.push_back(first);
      finish_sum_ += first;
      uncut += last;
      rest += std::max(0.0, step.StepSeconds() - last);
    }
    for (const double cuts : replica_cuts_) {
      num_over_limit_ += cuts > max_replica_cuts_ ? 1 : 0;
    }
    rest_sum_ = rest;
    uncut_sum_ = uncut + rest;
    if (!injections_.empty()) {
      // Times of done and ready come from one clock but two places.
      drain_seconds_ =
          std::max(0.0, drain / static_cast<double>(injections_.size()));
    }
    std::sort(injections_.begin(), injections_.end(),
              [](const Injection& a, const Injection& b) {
                return a.ready_seconds < b.ready_seconds;
              });
  }

  bool is_done() const { return next_ == injections_.size(); }
  double next_ready_seconds() const { return injections_[next_].ready_seconds; }

  /// Keeps all micro-batches that are ready at `tau_seconds`.
  void AdmitUntil(double tau_seconds) {
    while (!is_done() && next_ready_seconds() <= tau_seconds) {
      const Injection& injection = injections_[next_++];
      double& finish = finish_[injection.step];
      if (injection.done_seconds > finish) {
        finish_sum_ += injection.done_seconds - finish;
        finish = injection.done_seconds;
      }
      ++num_kept_;
      if (injection.last_of_replica != kNotLast)
        Uncut(injection.last_of_replica);
    }
  }

  double drop_share() const { return 1 - num_kept_ / num_planned_; }
  /// Whether a replica is cut more often than it may.
  bool is_over_replica_limit() const { return num_over_limit_ > 0; }
  double cut_share() const { return num_cut_ / num_replica_steps_; }
  double speedup() const {
    const double seconds = finish_sum_ + rest_sum_;
    return seconds > 0 ? num_kept_ / num_planned_ * uncut_sum_ / seconds : 1;
  }

  DropPlan Plan(double tau_seconds) const {
    DropPlan plan;
    plan.tau_seconds = tau_seconds;
    plan.drain_seconds = drain_seconds_;
    plan.drop_share = drop_share();
    plan.cut_share = cut_share();
    plan.speedup = speedup();
    plan.step_seconds = (finish_sum_ + rest_sum_) / num_steps_;
    plan.uncut_step_seconds = uncut_sum_ / num_steps_;
    plan.rest_seconds = rest_sum_ / num_steps_;
    return plan;
  }

 private:
  struct Injection {
    double ready_seconds;
    double done_seconds;
    int32_t step;
    /// The replica, if this is its last micro-batch of the step.
    int32_t last_of_replica;
  };
  static constexpr int32_t kNotLast = -1;

  void Uncut(int32_t replica) {
    --num_cut_;
    double& cuts = replica_cuts_[replica];
    const bool was_over = cuts > max_replica_cuts_;
    --cuts;
    if (was_over && cuts <= max_replica_cuts_) --num_over_limit_;
  }

  const double num_steps_;
  const double max_replica_cuts_;
  std::vector<double> replica_cuts_;
  int num_over_limit_ = 0;
  std::vector<Injection> injections_;
  size_t next_ = 0;
  std::vector<double> finish_;  // of each step's slowest replica
  double finish_sum_ = 0;
  double rest_sum_ = 0;
  double uncut_sum_ = 0;
  double drain_seconds_ = 0;
  double num_replica_steps_ = 0;
  double num_planned_ = 0;
  double num_kept_ = 0;
  double num_cut_ = 0;
};

}  // namespace

absl::StatusOr<DropPlan> PlanDrop(absl::Span<const StepObservation> steps,
                                  const DropPlannerOptions& options) {
  DP_RETURN_IF_ERROR(CheckSteps(steps));
  Sweep sweep(steps, options.max_replica_cut_share);
  DropPlan best;
  best.speedup = 0;
  while (!sweep.is_done()) {
    const double ready = sweep.next_ready_seconds();
    sweep.AdmitUntil(ready);
    if (sweep.is_done()) break;
    if (sweep.drop_share() <= options.max_drop_share &&
        sweep.cut_share() <= options.max_cut_share &&
        !sweep.is_over_replica_limit() && sweep.speedup() >= best.speedup) {
      best = sweep.Plan((ready + sweep.next_ready_seconds()) / 2);
    }
  }
  const DropPlan whole = sweep.Plan(std::numeric_limits<double>::infinity());
  // Equal speeds: what drops less.
  return best.speedup > whole.speedup ? best : whole;
}

absl::StatusOr<DropPlan> EvaluateDrop(absl::Span<const StepObservation> steps,
                                      double tau_seconds) {
  DP_RETURN_IF_ERROR(CheckSteps(steps));
  Sweep sweep(steps, /*max_replica_cut_share=*/1);
  sweep.AdmitUntil(tau_seconds);
  return sweep.Plan(tau_seconds);
}

}  // namespace deltapipe
