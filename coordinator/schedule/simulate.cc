#include "coordinator/schedule/simulate.h"

#include <algorithm>
#include <deque>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

// Steps without a flush that are simulated, and those of them by which the
// others are measured: both well away from the ends.
constexpr int kSimulatedSteps = 10;
constexpr int kFirstMeasured = 3;
constexpr int kLastMeasured = 8;

/// One boundary and direction: encoder, link and decoder in a row.
class Lane {
 public:
  Lane(const LinkModel& link, const DirectionModel& direction)
      : encode_seconds_(direction.encode_seconds),
        wire_seconds_(link.WireSeconds(direction)),
        latency_seconds_(link.latency_seconds),
        decode_seconds_(direction.decode_seconds) {}

  void Send(int microbatch, double now) {
    encoder_free_ = std::max(now, encoder_free_) + encode_seconds_;
    link_free_ = std::max(encoder_free_, link_free_) + wire_seconds_;
    decoder_free_ = std::max(link_free_ + latency_seconds_, decoder_free_) +
                    decode_seconds_;
    ready_.push_back({microbatch, decoder_free_});
    busy_seconds_ += wire_seconds_;
  }

  struct Arrival {
    int microbatch = 0;
    double ready_seconds = 0;
  };
  /// What comes next, or null if nothing was sent yet.
  const Arrival* Next() const {
    return ready_.empty() ? nullptr : &ready_.front();
  }
  void Pop() { ready_.pop_front(); }

  double busy_seconds() const { return busy_seconds_; }

 private:
  double encode_seconds_;
  double wire_seconds_;
  double latency_seconds_;
  double decode_seconds_;
  double encoder_free_ = 0;
  double link_free_ = 0;
  double decoder_free_ = 0;
  double busy_seconds_ = 0;
  std::deque<Arrival> ready_;
};

class Simulator {
 public:
  Simulator(const std::vector<Program>& programs, const PipelineModel& model,
            bool keep_spans)
      : programs_(programs),
        model_(model),
        keep_spans_(keep_spans),
        is_continuous_(
            std::any_of(programs.begin(), programs.end(), IsContinuous)),
        clocks_(programs.size()),
        in_flight_(programs.size()) {
    result_.stages.resize(programs.size());
    if (is_continuous_) {
      for (Program& program : programs_) {
        program = Unroll(program, kSimulatedSteps);
      }
      reduced_.resize(programs.size());
    }
    for (const LinkModel& link : model.links) {
      activations_.emplace_back(link, link.activation);
      gradients_.emplace_back(link, link.gradient);
    }
  }

  absl::StatusOr<Simulation> Run() {
    if (is_continuous_) {
      DP_RETURN_IF_ERROR(RunUntil(v1::Instruction::KIND_UNSPECIFIED));
      return FinishContinuous();
    }
    DP_RETURN_IF_ERROR(RunUntil(v1::Instruction::APPLY));
    // APPLY needs the verdict of all stages.
    double verdict = model_.verdict_seconds;
    for (const double clock : clocks_) {
      verdict = std::max(verdict, clock + model_.verdict_seconds);
    }
    for (double& clock : clocks_) clock = verdict;
    DP_RETURN_IF_ERROR(RunUntil(v1::Instruction::KIND_UNSPECIFIED));
    return Finish();
  }

 private:
  /// Runs every stage up to its first instruction of kind `stop`, or its end.
  absl::Status RunUntil(InstructionKind stop) {
    if (position_.empty()) position_.resize(programs_.size(), 0);
    bool has_moved = true;
    bool is_done = false;
    while (has_moved && !is_done) {
      has_moved = false;
      is_done = true;
      for (size_t stage = 0; stage < programs_.size(); ++stage) {
        const Program& program = programs_[stage];
        size_t& position = position_[stage];
        while (position < program.size() && program[position].kind != stop) {
          DP_ASSIGN_OR_RETURN(const bool ran,
                              RunStep(stage, program[position]));
          if (!ran) break;
          ++position;
          has_moved = true;
        }
        if (position < program.size() && program[position].kind != stop) {
          is_done = false;
        }
      }
    }
    if (is_done) return absl::OkStatus();
    for (size_t stage = 0; stage < programs_.size(); ++stage) {
      if (position_[stage] >= programs_[stage].size()) continue;
      return absl::FailedPreconditionError(absl::StrCat(
          "deadlock: stage ", stage, " waits at instruction ", position_[stage],
          ", ", StepText(programs_[stage][position_[stage]])));
    }
    return absl::InternalError("deadlock without a waiting stage");
  }

  /// False if the step has to wait for another stage's send.
  absl::StatusOr<bool> RunStep(size_t stage, const Step& step) {
    const StageModel& costs = model_.stages[stage];
    switch (step.kind) {
      case v1::Instruction::FORWARD:
        result_.stages[stage].peak_in_flight =
            std::max(result_.stages[stage].peak_in_flight, ++in_flight_[stage]);
        Compute(stage, step, costs.forward_seconds, true);
        return true;
      case v1::Instruction::BACKWARD:
        --in_flight_[stage];
        Compute(stage, step, costs.backward_seconds, true);
        return true;
      case v1::Instruction::REDUCE:
        if (is_continuous_) {
          reduced_[stage].push_back(
              {clocks_[stage], clocks_[stage] + costs.reduce_seconds});
          return true;
        }
        Compute(stage, step, costs.reduce_seconds, false);
        return true;
      case v1::Instruction::APPLY:
        if (is_continuous_) {
          return AwaitUpdate(stage, static_cast<size_t>(step.microbatch));
        }
        Compute(stage, step, costs.apply_seconds, true);
        return true;
      case v1::Instruction::SEND_ACTIVATION:
        return Send(
            stage, step,
            stage < activations_.size() ? &activations_[stage] : nullptr);
      case v1::Instruction::SEND_GRADIENT:
        return Send(stage, step, stage > 0 ? &gradients_[stage - 1] : nullptr);
      case v1::Instruction::RECEIVE_ACTIVATION:
        return Receive(stage, step,
                       stage > 0 ? &activations_[stage - 1] : nullptr);
      case v1::Instruction::RECEIVE_GRADIENT:
        return Receive(
            stage, step,
            stage < gradients_.size() ? &gradients_[stage] : nullptr);
      default:
        return true;
    }
  }

  void Compute(size_t stage, const Step& step, double seconds, bool is_busy) {
    double& clock = clocks_[stage];
    if (keep_spans_) {
      result_.stages[stage].spans.push_back({step, clock, clock + seconds});
    }
    clock += seconds;
    if (is_busy) result_.stages[stage].busy_seconds += seconds;
  }

  /// False as long as some stage has not come to the step's REDUCE.
  bool AwaitUpdate(size_t stage, size_t step) {
    double verdict = 0;
    for (const std::vector<Reduced>& of_stage : reduced_) {
      if (of_stage.size() <= step) return false;
      verdict = std::max(verdict, of_stage[step].end_seconds);
    }
    const double apply_seconds = model_.stages[stage].apply_seconds;
    clocks_[stage] = std::max(clocks_[stage],
                              verdict + model_.verdict_seconds + apply_seconds);
    return true;
  }

  absl::StatusOr<bool> Send(size_t stage, const Step& step, Lane* lane) {
    if (lane == nullptr) return NoBoundary(stage, step);
    lane->Send(step.microbatch, clocks_[stage]);
    return true;
  }

  absl::StatusOr<bool> Receive(size_t stage, const Step& step, Lane* lane) {
    if (lane == nullptr) return NoBoundary(stage, step);
    const Lane::Arrival* arrival = lane->Next();
    if (arrival == nullptr) return false;
    if (arrival->microbatch != step.microbatch) {
      return absl::FailedPreconditionError(
          absl::StrCat("stage ", stage, ": ", StepText(step),
                       " meets micro-batch ", arrival->microbatch));
    }
    clocks_[stage] = std::max(clocks_[stage], arrival->ready_seconds);
    lane->Pop();
    return true;
  }

  static absl::Status NoBoundary(size_t stage, const Step& step) {
    return absl::FailedPreconditionError(
        absl::StrCat("stage ", stage, " has no boundary for ", StepText(step)));
  }

  Simulation FinishContinuous() {
    const std::vector<Reduced>& first = reduced_.front();
    result_.step_seconds = (first[kLastMeasured].begin_seconds -
                            first[kFirstMeasured].begin_seconds) /
                           (kLastMeasured - kFirstMeasured);
    const double begin = first[kFirstMeasured].begin_seconds;
    for (StageSimulation& stage : result_.stages) {
      stage.busy_seconds /= kSimulatedSteps;
      // One step's length of what they do, from stage 0's point of view.
      std::vector<ComputeSpan> spans;
      for (ComputeSpan span : stage.spans) {
        span.begin_seconds -= begin;
        span.end_seconds -= begin;
        if (span.end_seconds <= 0 || span.begin_seconds >= result_.step_seconds)
          continue;
        span.begin_seconds = std::max(span.begin_seconds, 0.0);
        span.end_seconds = std::min(span.end_seconds, result_.step_seconds);
        spans.push_back(span);
      }
      stage.spans = std::move(spans);
    }
    Simulation simulation = FinishFigures();
    for (LinkSimulation& link : simulation.links) {
      link.activation_busy_seconds /= kSimulatedSteps;
      link.gradient_busy_seconds /= kSimulatedSteps;
    }
    return simulation;
  }

  Simulation Finish() {
    for (const double clock : clocks_) {
      result_.step_seconds = std::max(result_.step_seconds, clock);
    }
    return FinishFigures();
  }

  Simulation FinishFigures() {
    for (StageSimulation& stage : result_.stages) {
      stage.idle_seconds = result_.step_seconds - stage.busy_seconds;
      if (result_.step_seconds > 0) {
        result_.bubble += stage.idle_seconds / result_.step_seconds /
                          static_cast<double>(result_.stages.size());
      }
    }
    for (size_t b = 0; b < activations_.size(); ++b) {
      result_.links.push_back(
          {activations_[b].busy_seconds(), gradients_[b].busy_seconds()});
    }
    return std::move(result_);
  }

  /// When a stage came to a step's REDUCE, and when its gradients are there.
  struct Reduced {
    double begin_seconds = 0;
    double end_seconds = 0;
  };

  std::vector<Program> programs_;
  const PipelineModel& model_;
  const bool keep_spans_;
  const bool is_continuous_;
  std::vector<Lane> activations_;
  std::vector<Lane> gradients_;
  std::vector<double> clocks_;
  std::vector<int> in_flight_;
  std::vector<size_t> position_;
  std::vector<std::vector<Reduced>> reduced_;  // by stage and step
  Simulation result_;
};

}  // namespace

absl::StatusOr<Simulation> Simulate(const std::vector<Program>& programs,
                                    const PipelineModel& model,
                                    bool keep_spans) {
  if (programs.empty() || model.stages.size() != programs.size() ||
      model.links.size() + 1 != programs.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "simulation of ", programs.size(),
        " programs needs as many stages "
        "and one link less, got ",
        model.stages.size(), " stages and ", model.links.size(), " links"));
  }
  return Simulator(programs, model, keep_spans).Run();
}

}  // namespace deltapipe
