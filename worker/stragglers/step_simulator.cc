#include "worker/stragglers/step_simulator.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/stragglers/drop_planner.h"
#include "worker/stragglers/jitter_or_persistent.h"

namespace deltapipe {
namespace {

using AdmitFunction = std::function<bool(int, double)>;

constexpr double kNotYet = -1;

double ReadSeconds(const SimulatedJob& job, int64_t step, int replica,
                   int planned) {
  return job.read_seconds ? job.read_seconds(replica, step, planned) : 0;
}

/// A replica's step through a pipeline of several stages.
class PipelineStep {
 public:
  PipelineStep(const SimulatedJob& job, int64_t step, int replica, int planned)
      : job_(job),
        step_(step),
        replica_(replica),
        end_(planned),
        forward_end_(job.num_stages, std::vector<double>(planned, kNotYet)),
        backward_end_(forward_end_),
        clocks_(job.num_stages, 0),
        positions_(job.num_stages, 0) {
    observation_.planned = planned;
    clocks_[0] = ReadSeconds(job, step, replica, planned);
  }

  ReplicaObservation Run(const AdmitFunction& admit) {
    bool has_moved = true;
    while (has_moved) {
      has_moved = false;
      for (int stage = 0; stage < job_.num_stages; ++stage) {
        while (positions_[stage] < 2 * observation_.planned &&
               RunNext(stage, admit)) {
          ++positions_[stage];
          has_moved = true;
        }
      }
    }
    observation_.executed = end_;
    return std::move(observation_);
  }

 private:
  struct Work {
    int microbatch;
    bool is_backward;
  };

  /// 1F1B: as many forwards as there are stages below, then a forward and a
  /// backward in turn, then what is left.
  Work WorkAt(int stage, int position) const {
    const int planned = observation_.planned;
    const int warmup = std::min(job_.num_stages - 1 - stage, planned);
    if (position < warmup) return {position, false};
    if (position >= 2 * planned - warmup) return {position - planned, true};
    const int turn = position - warmup;
    return turn % 2 == 0 ? Work{warmup + turn / 2, false}
                         : Work{turn / 2, true};
  }

  /// False if it has to wait for another stage.
  bool RunNext(int stage, const AdmitFunction& admit) {
    const Work work = WorkAt(stage, positions_[stage]);
    const int m = work.microbatch;
    if (m >= end_) return true;  // cut
    if (!work.is_backward && stage == 0) {
      observation_.ready_seconds.push_back(clocks_[0]);
      if (!admit(m, clocks_[0])) {
        end_ = m;
        return true;
      }
    }
    double begin = clocks_[stage];
    if (const std::vector<double>* needed = Needed(stage, work.is_backward)) {
      if ((*needed)[m] == kNotYet) return false;
      begin = std::max(begin, (*needed)[m]);
    }
    const double end =
        begin + job_.seconds(replica_, step_, m,
                             2 * stage + (work.is_backward ? 1 : 0));
    clocks_[stage] = end;
    (work.is_backward ? backward_end_ : forward_end_)[stage][m] = end;
    if (work.is_backward && stage == 0)
      observation_.done_seconds.push_back(end);
    return true;
  }

  /// When the input of each micro-batch arrived; null for stage 0's forwards.
  const std::vector<double>* Needed(int stage, bool is_backward) const {
    if (!is_backward) return stage == 0 ? nullptr : &forward_end_[stage - 1];
    return stage + 1 == job_.num_stages ? &forward_end_[stage]
                                        : &backward_end_[stage + 1];
  }

  const SimulatedJob& job_;
  const int64_t step_;
  const int replica_;
  /// Micro-batches from here on are not run.
  int end_;
  std::vector<std::vector<double>> forward_end_;  // [stage][micro-batch]
  std::vector<std::vector<double>> backward_end_;
  std::vector<double> clocks_;
  std::vector<int> positions_;
  ReplicaObservation observation_;
};

ReplicaObservation RunSingleStage(const SimulatedJob& job, int64_t step,
                                  int replica, int planned,
                                  const AdmitFunction& admit) {
  ReplicaObservation observation;
  observation.planned = planned;
  double elapsed = ReadSeconds(job, step, replica, planned);
  for (int m = 0; m < planned; ++m) {
    observation.ready_seconds.push_back(elapsed);
    if (!admit(m, elapsed)) break;
    elapsed += job.seconds(replica, step, m, 0);
    observation.done_seconds.push_back(elapsed);
    ++observation.executed;
  }
  return observation;
}

bool Agree(const StragglerGauges& a, const StragglerGauges& b) {
  return a.state == b.state && a.tau_seconds == b.tau_seconds &&
         a.num_decisions == b.num_decisions &&
         a.is_tau_enforced == b.is_tau_enforced &&
         a.num_dropped == b.num_dropped;
}

/// A job while it runs.
class Simulation {
 public:
  explicit Simulation(const SimulatedJob& job)
      : job_(job), counts_(job.num_replicas, job.num_microbatches) {}

  void set_counts(std::vector<int> counts) { counts_ = std::move(counts); }
  const std::vector<int>& counts() const { return counts_; }
  const SimulatedRun& run() const { return run_; }
  SimulatedRun Take() { return std::move(run_); }

  /// Runs a step; admit(replica, micro-batch, elapsed seconds).
  StepObservation RunStep(const std::function<bool(int, int, double)>& admit) {
    StepObservation observation;
    observation.step = static_cast<int64_t>(run_.steps.size());
    SimulatedStep step;
    step.planned = counts_;
    for (int r = 0; r < job_.num_replicas; ++r) {
      observation.replicas.push_back(SimulateReplica(
          job_, observation.step, r, counts_[r],
          [&](int m, double elapsed) { return admit(r, m, elapsed); }));
      const ReplicaObservation& replica = observation.replicas.back();
      const double done =
          replica.executed > 0 ? replica.done_seconds.back() : 0;
      step.seconds = std::max(step.seconds, done);
      step.uncut_seconds = std::max(step.uncut_seconds,
                                    replica.is_cut() ? UncutSeconds(r) : done);
      step.executed.push_back(replica.executed);
    }
    step.seconds += job_.rest_seconds;
    step.uncut_seconds += job_.rest_seconds;
    for (ReplicaObservation& replica : observation.replicas) {
      replica.step_seconds = step.seconds;
    }
    run_.steps.push_back(std::move(step));
    return observation;
  }

  SimulatedRun& mutable_run() { return run_; }

 private:
  /// When a replica is done with this step if it does all.
  double UncutSeconds(int replica) const {
    return SimulateReplica(job_, static_cast<int64_t>(run_.steps.size()),
                           replica, counts_[replica],
                           [](int, double) { return true; })
        .done_seconds.back();
  }

  const SimulatedJob& job_;
  std::vector<int> counts_;
  SimulatedRun run_;
};

absl::Status CheckJob(const SimulatedJob& job, int num_steps) {
  if (job.num_replicas > 0 && job.num_stages > 0 && job.num_microbatches > 0 &&
      num_steps > 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "a simulation needs replicas, stages, micro-batches and steps, got ",
      job.num_replicas, ", ", job.num_stages, ", ", job.num_microbatches,
      " and ", num_steps));
}

/// A run with a constant threshold and constant counts.
SimulatedRun RunFixed(const SimulatedJob& job, double tau_seconds,
                      std::vector<int> counts, int num_steps) {
  Simulation simulation(job);
  simulation.set_counts(std::move(counts));
  for (int i = 0; i < num_steps; ++i) {
    simulation.RunStep([&](int /*replica*/, int m, double elapsed) {
      return m == 0 || elapsed <= tau_seconds;
    });
  }
  return simulation.Take();
}

/// A run without cuts; replaces `observations` by what was observed.
SimulatedRun RunWhole(const SimulatedJob& job, const std::vector<int>& counts,
                      int num_steps,
                      std::vector<StepObservation>* observations) {
  Simulation simulation(job);
  simulation.set_counts(counts);
  observations->clear();
  for (int i = 0; i < num_steps; ++i) {
    observations->push_back(
        simulation.RunStep([](int, int, double) { return true; }));
  }
  return simulation.Take();
}

/// Times that are earlier than 5 %, 10 %, ... 60 % of the last injections. A
/// pipeline that is cut drains faster than a whole one, so that only running it
/// tells how much a threshold brings.
std::vector<double> LateInjections(
    const std::vector<StepObservation>& observations) {
  std::vector<double> last;
  for (const StepObservation& observation : observations) {
    for (const ReplicaObservation& replica : observation.replicas) {
      last.push_back(replica.ready_seconds.back());
    }
  }
  std::sort(last.begin(), last.end());
  std::vector<double> times;
  for (int twentieths = 8; twentieths < 20; ++twentieths) {
    times.push_back(last[last.size() * twentieths / 20]);
  }
  return times;
}

}  // namespace

double SimulatedRun::ExecutedPerSecond(size_t first_step) const {
  double executed = 0, seconds = 0;
  for (size_t i = first_step; i < steps.size(); ++i) {
    for (const int count : steps[i].executed) executed += count;
    seconds += steps[i].seconds;
  }
  return seconds > 0 ? executed / seconds : 0;
}

double SimulatedRun::DropShare(size_t first_step) const {
  double executed = 0, planned = 0;
  for (size_t i = first_step; i < steps.size(); ++i) {
    for (const int count : steps[i].executed) executed += count;
    for (const int count : steps[i].planned) planned += count;
  }
  return planned > 0 ? 1 - executed / planned : 0;
}

double SimulatedRun::StepSecondsQuantile(double q, size_t first_step) const {
  std::vector<double> seconds;
  for (size_t i = first_step; i < steps.size(); ++i) {
    seconds.push_back(steps[i].seconds);
  }
  if (seconds.empty()) return 0;
  const auto rank = static_cast<size_t>(
      std::max(1.0, std::ceil(q * static_cast<double>(seconds.size()))));
  std::nth_element(seconds.begin(), seconds.begin() + (rank - 1),
                   seconds.end());
  return seconds[rank - 1];
}

PredictionCheck CheckPrediction(const SimulatedRun& run) {
  PredictionCheck check;
  double planned = 0, executed = 0, seconds = 0, uncut_seconds = 0;
  double drop = 0, speedup = 0;
  for (const SimulatedStep& step : run.steps) {
    if (!step.is_tau_enforced) continue;
    ++check.num_steps;
    for (const int count : step.planned) planned += count;
    for (const int count : step.executed) executed += count;
    seconds += step.seconds;
    uncut_seconds += step.uncut_seconds;
    drop += step.predicted_drop_share;
    speedup += step.predicted_speedup;
  }
  if (check.num_steps == 0) return check;
  check.predicted_drop_share = drop / check.num_steps;
  check.predicted_speedup = speedup / check.num_steps;
  check.realised_drop_share = 1 - executed / planned;
  check.realised_speedup = executed / planned * uncut_seconds / seconds;
  return check;
}

ReplicaObservation SimulateReplica(const SimulatedJob& job, int64_t step,
                                   int replica, int planned,
                                   const AdmitFunction& admit) {
  if (job.num_stages == 1) {
    return RunSingleStage(job, step, replica, planned, admit);
  }
  return PipelineStep(job, step, replica, planned).Run(admit);
}

absl::StatusOr<SimulatedRun> SimulatePolicy(const SimulatedJob& job,
                                            absl::string_view policy,
                                            const SyncPolicyOptions& options,
                                            int num_steps) {
  DP_RETURN_IF_ERROR(CheckJob(job, num_steps));
  std::vector<std::unique_ptr<SyncPolicy>> policies;
  for (int r = 0; r < job.num_replicas; ++r) {
    SyncPolicyOptions own = options;
    own.rank = r;
    DP_ASSIGN_OR_RETURN(std::unique_ptr<SyncPolicy> made,
                        MakeSyncPolicy(policy, own));
    policies.push_back(std::move(made));
  }
  Simulation simulation(job);
  StepObservation previous;
  for (int i = 0; i < num_steps; ++i) {
    for (const auto& one : policies) {
      DP_RETURN_IF_ERROR(one->BeginStep(
          {i, /*bucket=*/0, /*plan_revision=*/0, simulation.counts()}));
    }
    const StragglerGauges gauges = policies[0]->gauges();
    StepObservation observation =
        simulation.RunStep([&](int r, int m, double elapsed) {
          return policies[r]->Admit(m, elapsed);
        });
    SimulatedStep& step = simulation.mutable_run().steps.back();
    step.is_tau_enforced = gauges.is_tau_enforced;
    step.predicted_drop_share = gauges.predicted_drop_share;
    step.predicted_speedup = gauges.predicted_speedup;
    for (const auto& one : policies) {
      if (i > 0) DP_RETURN_IF_ERROR(one->EndStep(previous));
      if (!Agree(one->gauges(), policies[0]->gauges()) ||
          one->advice().counts != policies[0]->advice().counts) {
        return absl::InternalError(
            absl::StrCat("replicas disagree after step ", i));
      }
    }
    previous = std::move(observation);
    const RebalanceAdvice& advice = policies[0]->advice();
    step.is_rebalance_advised = advice.is_advised;
    if (!advice.counts.empty() && advice.counts != simulation.counts()) {
      simulation.set_counts(advice.counts);
      ++simulation.mutable_run().num_rebalances;
    }
  }
  simulation.mutable_run().gauges = policies[0]->gauges();
  return simulation.Take();
}

absl::StatusOr<SimulatedRun> SimulateOracle(const SimulatedJob& job,
                                            double max_drop_share,
                                            int num_steps) {
  DP_RETURN_IF_ERROR(CheckJob(job, num_steps));
  std::vector<int> counts(job.num_replicas, job.num_microbatches);
  std::vector<StepObservation> observations;
  SimulatedRun best = RunWhole(job, counts, num_steps, &observations);
  if (num_steps < 4) return best;
  SlownessOptions options;
  options.planner.max_drop_share = max_drop_share;
  options.planner.max_cut_share = 1;
  options.max_replica_cut_share = 1;
  options.min_shift = 0;
  const auto keep_better = [&](SimulatedRun run) {
    if (run.DropShare() <= max_drop_share &&
        run.ExecutedPerSecond() > best.ExecutedPerSecond()) {
      best = std::move(run);
    }
  };
  // First with even counts, then with balanced ones.
  for (const bool is_balanced : {false, true}) {
    DP_ASSIGN_OR_RETURN(const SlownessVerdict verdict,
                        JitterOrPersistent(observations, options));
    keep_better(RunFixed(job, verdict.drop.tau_seconds, counts, num_steps));
    if (job.num_stages > 1) {
      for (const double tau : LateInjections(observations)) {
        keep_better(RunFixed(job, tau, counts, num_steps));
      }
    }
    if (is_balanced || verdict.counts == counts) break;
    counts = verdict.counts;
    keep_better(RunWhole(job, counts, num_steps, &observations));
  }
  return best;
}

}  // namespace deltapipe
