#include "coordinator/stragglers/what_if.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

// To fix more workers always saves a little more jitter.
constexpr double kWiderFixFactor = 1.2;

double At(const std::vector<double>& seconds, int microbatch) {
  return seconds.empty() ? 0 : seconds[microbatch];
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

/// The lower one of an even number: of two, the faster.
double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = (values.size() - 1) / 2;
  std::nth_element(values.begin(), values.begin() + middle, values.end());
  return values[middle];
}

absl::Status CheckWorker(const StepTimings& step, int stage, int replica) {
  const WorkerTimings& worker = step.At(stage, replica);
  const size_t count = step.At(0, replica).forward_seconds.size();
  const std::vector<double> reduce = {worker.reduce_seconds};
  for (const std::vector<double>* seconds :
       {&worker.forward_seconds, &worker.backward_seconds, &worker.load_seconds,
        &worker.activation_send_seconds, &worker.gradient_send_seconds,
        &reduce}) {
    const bool must_have = seconds == &worker.forward_seconds ||
                           seconds == &worker.backward_seconds;
    if (seconds != &reduce && seconds->size() != count &&
        (must_have || !seconds->empty())) {
      return absl::InvalidArgumentError(
          absl::StrCat("timings of step ", step.step, ", stage ", stage,
                       ", replica ", replica, " are of ", seconds->size(),
                       " micro-batches, expected ", count));
    }
    for (const double value : *seconds) {
      if (!std::isfinite(value) || value < 0) {
        return absl::InvalidArgumentError(
            absl::StrCat("timings of step ", step.step, ", stage ", stage,
                         ", replica ", replica, ": ", value, " s cannot be"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSteps(const std::vector<StepTimings>& steps) {
  if (steps.empty()) return absl::InvalidArgumentError("no step to replay");
  const StepTimings& first = steps[0];
  for (const StepTimings& step : steps) {
    if (step.num_stages != first.num_stages ||
        step.num_replicas != first.num_replicas || step.num_stages < 1 ||
        step.num_replicas < 1 ||
        step.workers.size() != static_cast<size_t>(step.num_stages) *
                                   static_cast<size_t>(step.num_replicas)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "timings of step ", step.step, " are of ", step.workers.size(),
          " workers, expected ", first.num_stages, " stages of ",
          first.num_replicas, " replicas"));
    }
    for (int stage = 0; stage < step.num_stages; ++stage) {
      for (int replica = 0; replica < step.num_replicas; ++replica) {
        DP_RETURN_IF_ERROR(CheckWorker(step, stage, replica));
      }
    }
  }
  return absl::OkStatus();
}

/// One boundary and direction of a replica.
struct Wire {
  double free_seconds = 0;
  std::deque<double> arrivals;
};

}  // namespace

/// One step, once through.
class WhatIf::Replay {
 public:
  Replay(const WhatIf& what_if, const StepTimings& step, const Fix& fix)
      : what_if_(what_if), step_(step), fix_(fix) {}

  double StepSeconds() {
    std::vector<double> entered(step_.num_stages, 0);
    for (int replica = 0; replica < step_.num_replicas; ++replica) {
      RunReplica(replica, &entered);
    }
    double end = 0;
    for (int stage = 0; stage < step_.num_stages; ++stage) {
      end = std::max(end, entered[stage] + ReduceSeconds(stage));
    }
    return end;
  }

 private:
  bool IsFixed(int stage, int replica) const {
    if (fix_.is_none) return false;
    return fix_.scope.Contains(stage, replica) != fix_.is_inverted;
  }

  double ReduceSeconds(int stage) const {
    // A collective has no worker of its own; it is a link of its stage.
    const bool is_fixed =
        !fix_.is_none && fix_.work.links &&
        (fix_.is_inverted
             ? fix_.scope.stage >= 0 && fix_.scope.stage != stage
             : fix_.scope.replica < 0 && fix_.scope.Contains(stage, 0));
    if (is_fixed) return what_if_.ideal_.reduce[stage];
    double seconds = step_.At(stage, 0).reduce_seconds;
    for (int replica = 1; replica < step_.num_replicas; ++replica) {
      seconds = std::min(seconds, step_.At(stage, replica).reduce_seconds);
    }
    return seconds;
  }

  double LoadSeconds(int stage, int replica, int count) const {
    if (IsFixed(stage, replica) && fix_.work.input) {
      return what_if_.ideal_.load[stage] * count;
    }
    double seconds = 0;
    for (const double load : step_.At(stage, replica).load_seconds) {
      seconds += load;
    }
    return seconds;
  }

  /// Raises entered[stage] to when the replica's stage enters the collective.
  void RunReplica(int replica, std::vector<double>* entered) {
    const int count =
        static_cast<int>(step_.At(0, replica).forward_seconds.size());
    if (count == 0) return;
    const std::vector<Program>& programs = what_if_.programs_.at(count);
    activations_.assign(programs.size(), {});
    gradients_.assign(programs.size(), {});
    std::vector<double> clocks(programs.size());
    for (int stage = 0; stage < step_.num_stages; ++stage) {
      clocks[stage] = LoadSeconds(stage, replica, count);
    }
    std::vector<size_t> positions(programs.size(), 0);
    bool has_moved = true;
    while (has_moved) {
      has_moved = false;
      for (int stage = 0; stage < step_.num_stages; ++stage) {
        while (positions[stage] < programs[stage].size() &&
               RunNext(stage, replica, programs[stage][positions[stage]],
                       &clocks[stage])) {
          ++positions[stage];
          has_moved = true;
        }
      }
    }
    for (int stage = 0; stage < step_.num_stages; ++stage) {
      (*entered)[stage] = std::max((*entered)[stage], clocks[stage]);
    }
  }

  /// False if it waits for another stage.
  bool RunNext(int stage, int replica, const Step& step, double* clock) {
    const WorkerTimings& worker = step_.At(stage, replica);
    const Ideal& ideal = what_if_.ideal_;
    const bool is_fixed = IsFixed(stage, replica);
    const int m = step.microbatch;
    const auto compute = [&](const std::vector<double>& measured,
                             double fixed) {
      *clock += is_fixed && fix_.work.compute ? fixed : At(measured, m);
    };
    const auto send = [&](Wire& wire, const std::vector<double>& measured,
                          double fixed) {
      wire.free_seconds =
          std::max(wire.free_seconds, *clock) +
          (is_fixed && fix_.work.links ? fixed : At(measured, m));
      wire.arrivals.push_back(wire.free_seconds);
    };
    const auto receive = [&](Wire& wire) {
      if (wire.arrivals.empty()) return false;
      *clock = std::max(*clock, wire.arrivals.front());
      wire.arrivals.pop_front();
      return true;
    };
    switch (step.kind) {
      case v1::Instruction::FORWARD:
        compute(worker.forward_seconds, ideal.forward);
        return true;
      case v1::Instruction::BACKWARD:
        compute(worker.backward_seconds, ideal.backward);
        return true;
      case v1::Instruction::SEND_ACTIVATION:
        send(activations_[stage], worker.activation_send_seconds,
             ideal.activation_send);
        return true;
      case v1::Instruction::SEND_GRADIENT:
        send(gradients_[stage], worker.gradient_send_seconds,
             ideal.gradient_send);
        return true;
      case v1::Instruction::RECEIVE_ACTIVATION:
        return receive(activations_[stage - 1]);
      case v1::Instruction::RECEIVE_GRADIENT:
        return receive(gradients_[stage + 1]);
      default:
        return true;
    }
  }

  const WhatIf& what_if_;
  const StepTimings& step_;
  const Fix& fix_;
  // By the stage that sends.
  std::vector<Wire> activations_;
  std::vector<Wire> gradients_;
};

double WhatIfReport::Score(int stage, int replica) const {
  return std::min(stage_scores[stage], replica_scores[replica]);
}

absl::StatusOr<WhatIf> WhatIf::Create(const Schedule& schedule,
                                      std::vector<StepTimings> steps) {
  DP_RETURN_IF_ERROR(CheckSteps(steps));
  WhatIf what_if;
  what_if.steps_ = std::move(steps);
  for (const StepTimings& step : what_if.steps_) {
    for (int replica = 0; replica < step.num_replicas; ++replica) {
      const int count =
          static_cast<int>(step.At(0, replica).forward_seconds.size());
      if (count == 0 || what_if.programs_.count(count) > 0) continue;
      what_if.programs_[count] = ProgramsOf(schedule, {step.num_stages, count});
    }
  }
  what_if.FindIdeals();
  return what_if;
}

void WhatIf::FindIdeals() {
  const int num_stages = steps_[0].num_stages;
  const int num_replicas = steps_[0].num_replicas;
  std::vector<double> activation_sends, gradient_sends;
  for (int stage = 0; stage < num_stages; ++stage) {
    std::vector<double> forwards, backwards, loads, reduces;
    for (int replica = 0; replica < num_replicas; ++replica) {
      std::vector<double> forward, backward, load;
      for (const StepTimings& step : steps_) {
        const WorkerTimings& worker = step.At(stage, replica);
        const auto append = [](const std::vector<double>& from,
                               std::vector<double>* to) {
          to->insert(to->end(), from.begin(), from.end());
        };
        append(worker.forward_seconds, &forward);
        append(worker.backward_seconds, &backward);
        append(worker.load_seconds, &load);
        append(worker.activation_send_seconds, &activation_sends);
        append(worker.gradient_send_seconds, &gradient_sends);
      }
      // A replica that executed nothing tells nothing.
      if (forward.empty()) continue;
      forwards.push_back(Mean(forward));
      backwards.push_back(Mean(backward));
      loads.push_back(Mean(load));
    }
    for (const StepTimings& step : steps_) {
      double seconds = step.At(stage, 0).reduce_seconds;
      for (int replica = 1; replica < num_replicas; ++replica) {
        seconds = std::min(seconds, step.At(stage, replica).reduce_seconds);
      }
      reduces.push_back(seconds);
    }
    ideal_.forward += Median(forwards) / num_stages;
    ideal_.backward += Median(backwards) / num_stages;
    ideal_.load.push_back(Median(loads));
    ideal_.reduce.push_back(Median(reduces));
  }
  ideal_.activation_send = Median(activation_sends);
  ideal_.gradient_send = Median(gradient_sends);
}

double WhatIf::MeanSeconds(const Fix& fix) const {
  double sum = 0;
  for (const StepTimings& step : steps_) {
    sum += Replay(*this, step, fix).StepSeconds();
  }
  return sum / static_cast<double>(steps_.size());
}

double WhatIf::StepSeconds() const {
  Fix fix;
  fix.is_none = true;
  return MeanSeconds(fix);
}

double WhatIf::IdealSeconds() const { return MeanSeconds({}); }

double WhatIf::FixedSeconds(const WorkerScope& scope,
                            const FixedWork& work) const {
  return MeanSeconds({scope, work, false, false});
}

double WhatIf::OnlySeconds(const WorkerScope& scope) const {
  return MeanSeconds({scope, {}, true, false});
}

WhatIfReport WhatIf::Report() const {
  WhatIfReport report;
  const int num_stages = steps_[0].num_stages;
  const int num_replicas = steps_[0].num_replicas;
  report.step_seconds = StepSeconds();
  report.ideal_seconds = IdealSeconds();
  const auto over_ideal = [&](double seconds) {
    return report.ideal_seconds > 0 ? seconds / report.ideal_seconds : 1;
  };
  report.slowdown = over_ideal(report.step_seconds);
  for (int stage = 0; stage < num_stages; ++stage) {
    report.stage_scores.push_back(over_ideal(OnlySeconds({stage, -1})));
  }
  for (int replica = 0; replica < num_replicas; ++replica) {
    report.replica_scores.push_back(over_ideal(OnlySeconds({-1, replica})));
  }
  const auto highest = [](const std::vector<double>& scores) {
    return static_cast<int>(std::max_element(scores.begin(), scores.end()) -
                            scores.begin());
  };
  report.worst = {highest(report.stage_scores), highest(report.replica_scores)};
  const auto lost = [&](const WorkerScope& scope) {
    return report.step_seconds - FixedSeconds(scope);
  };
  report.worst_seconds_lost = lost(report.worst);
  report.last_stage_seconds_lost = lost({num_stages - 1, -1});
  const double all = report.step_seconds - report.ideal_seconds;
  report.last_stage_share = all > 0 ? report.last_stage_seconds_lost / all : 0;
  report.best_fix = report.worst;
  report.best_fix_seconds = report.worst_seconds_lost;
  for (const WorkerScope& scope : {WorkerScope{report.worst.stage, -1},
                                   WorkerScope{-1, report.worst.replica},
                                   WorkerScope{num_stages - 1, -1}}) {
    const double seconds = lost(scope);
    if (seconds <= kWiderFixFactor * report.best_fix_seconds) continue;
    report.best_fix = scope;
    report.best_fix_seconds = seconds;
  }
  return report;
}

}  // namespace deltapipe
