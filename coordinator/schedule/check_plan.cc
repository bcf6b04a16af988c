#include "coordinator/schedule/check_plan.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/schedule/schedule.h"

namespace deltapipe {
namespace {

using Instruction = v1::Instruction;

constexpr int kNumKinds = Instruction::Kind_ARRAYSIZE;

absl::Status RefuseAt(size_t stage, size_t index, const Step& step,
                      absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat("plan refused: stage ", stage, ", instruction ", index, " (",
                   StepText(step), "): ", reason));
}

absl::Status RefuseStage(size_t stage, absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat("plan refused: stage ", stage, ": ", reason));
}

/// Of a replica: as many as there are instructions for.
int MostMicrobatches(const v1::Plan& plan) {
  return std::max(plan.num_microbatches(), plan.max_microbatches());
}

absl::Status CheckShape(const v1::Plan& plan) {
  if (plan.num_stages() < 1 || plan.num_stages() != plan.stages_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("plan refused: num_stages is ", plan.num_stages(),
                     ", but it has ", plan.stages_size(), " stages"));
  }
  if (plan.num_microbatches() < 1 || plan.num_replicas() < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan refused: expected at least 1 micro-batch and 1 replica, got ",
        plan.num_microbatches(), " and ", plan.num_replicas()));
  }
  if (plan.max_microbatches() != 0 &&
      plan.max_microbatches() < plan.num_microbatches()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan refused: expected at least num_microbatches (",
        plan.num_microbatches(), ") as max_microbatches, or 0, got ",
        plan.max_microbatches()));
  }
  int end_layer = 0;
  for (int r = 0; r < plan.stages_size(); ++r) {
    const v1::StagePlan& stage = plan.stages(r);
    if (stage.stage() != r) {
      return RefuseStage(r, absl::StrCat("is numbered ", stage.stage()));
    }
    if (stage.first_layer() != end_layer ||
        stage.end_layer() <= stage.first_layer()) {
      return RefuseStage(
          r, absl::StrCat("expected layers from ", end_layer, ", got [",
                          stage.first_layer(), ", ", stage.end_layer(), ")"));
    }
    end_layer = stage.end_layer();
    // Bounds what the checks below allocate by the message's own size.
    if (stage.instructions_size() < MostMicrobatches(plan)) {
      return RefuseStage(
          r,
          absl::StrCat("has ", stage.instructions_size(), " instructions for ",
                       MostMicrobatches(plan), " micro-batches"));
    }
  }
  return absl::OkStatus();
}

/// As many steps of a continuous plan show all that can happen: each begins
/// early, meets the one before, and ends late.
constexpr int kCheckedSteps = 4;

/// Follows one stage's program, of one step or of several unrolled ones, and
/// refuses the first instruction that breaks it.
class StageChecker {
 public:
  StageChecker(const v1::Plan& plan, size_t stage, const Program& program,
               int num_steps)
      : num_steps_(num_steps),
        step_microbatches_(MostMicrobatches(plan)),
        num_microbatches_(MostMicrobatches(plan) * num_steps),
        max_in_flight_(plan.stages(static_cast<int>(stage)).max_in_flight()),
        is_first_(stage == 0),
        is_last_(stage + 1 == static_cast<size_t>(plan.num_stages())),
        stage_(stage),
        program_(program),
        done_(static_cast<size_t>(num_microbatches_)),
        num_backward_(static_cast<size_t>(num_steps)) {}

  absl::Status Check() {
    for (size_t i = 0; i < program_.size(); ++i) {
      const std::string reason = Run(program_[i]);
      if (!reason.empty()) return RefuseAt(stage_, i, program_[i], reason);
    }
    for (int mb = 0; mb < num_microbatches_; ++mb) {
      for (const InstructionKind kind : kMicrobatchKinds) {
        if (Belongs(kind) && !Done(kind, mb)) return Missing({kind, mb});
      }
    }
    if (num_reduced_ < num_steps_) return Missing({Instruction::REDUCE, 0});
    if (num_applied_ < num_steps_) return Missing({Instruction::APPLY, 0});
    return absl::OkStatus();
  }

 private:
  static constexpr std::array<InstructionKind, 7> kMicrobatchKinds = {
      Instruction::LOAD,
      Instruction::RECEIVE_ACTIVATION,
      Instruction::FORWARD,
      Instruction::SEND_ACTIVATION,
      Instruction::RECEIVE_GRADIENT,
      Instruction::BACKWARD,
      Instruction::SEND_GRADIENT};

  bool Belongs(InstructionKind kind) const {
    switch (kind) {
      case Instruction::LOAD:
        return is_first_ || is_last_;
      case Instruction::RECEIVE_ACTIVATION:
      case Instruction::SEND_GRADIENT:
        return !is_first_;
      case Instruction::SEND_ACTIVATION:
      case Instruction::RECEIVE_GRADIENT:
        return !is_last_;
      case Instruction::FORWARD:
      case Instruction::BACKWARD:
      case Instruction::REDUCE:
      case Instruction::APPLY:
        return true;
      default:
        return false;
    }
  }

  bool Done(InstructionKind kind, int mb) const {
    return done_[static_cast<size_t>(mb)][static_cast<size_t>(kind)];
  }

  absl::Status Missing(const Step& step) const {
    return RefuseStage(stage_,
                       absl::StrCat("ends at instruction ", program_.size(),
                                    " without ", StepText(step)));
  }

  /// Runs a step; what is wrong with it, or "".
  std::string Run(const Step& step) {
    if (!Belongs(step.kind)) {
      return absl::StrCat("a stage that is ",
                          is_first_ && is_last_ ? "the only one"
                          : is_first_           ? "the first"
                          : is_last_            ? "the last"
                                                : "neither first nor last",
                          " has no such instruction");
    }
    if (num_applied_ == num_steps_) return "follows APPLY, which ends the step";
    if (step.kind == Instruction::REDUCE || step.kind == Instruction::APPLY) {
      return RunClosing(step);
    }
    if (step.microbatch < 0 || step.microbatch >= num_microbatches_) {
      return absl::StrCat("expected a micro-batch in 0..",
                          num_microbatches_ - 1);
    }
    if (Done(step.kind, step.microbatch)) return "is there for the second time";
    const std::string reason = RunMicrobatch(step);
    if (reason.empty()) {
      done_[static_cast<size_t>(step.microbatch)]
           [static_cast<size_t>(step.kind)] = true;
    }
    return reason;
  }

  std::string RunClosing(const Step& step) {
    int* const num_done =
        step.kind == Instruction::REDUCE ? &num_reduced_ : &num_applied_;
    if (num_steps_ == 1 && step.microbatch != 0) {
      return "expected micro-batch 0";
    }
    if (step.microbatch < *num_done) return "is there for the second time";
    if (step.microbatch > *num_done) return "is not that of the next step";
    if (step.kind == Instruction::REDUCE) {
      const int done = num_backward_[static_cast<size_t>(step.microbatch)];
      if (done < step_microbatches_) {
        return absl::StrCat("runs after ", done, " of ", step_microbatches_,
                            " BACKWARDs");
      }
      // Of two gradient buffers, that of this step must come back free.
      if (num_applied_ < num_reduced_) return "runs before the last APPLY";
    } else if (num_reduced_ <= num_applied_) {
      return "runs before REDUCE";
    }
    ++*num_done;
    return "";
  }

  std::string RunMicrobatch(const Step& step) {
    const int mb = step.microbatch;
    switch (step.kind) {
      case Instruction::FORWARD:
        if (Belongs(Instruction::LOAD) && !Done(Instruction::LOAD, mb)) {
          return "runs before its LOAD";
        }
        if (!is_first_ && !Done(Instruction::RECEIVE_ACTIVATION, mb)) {
          return "runs before its RECEIVE_ACTIVATION";
        }
        if (num_applied_ < mb / step_microbatches_ - 1) {
          return "runs before the update that made its weights";
        }
        if (++in_flight_ > max_in_flight_) {
          return absl::StrCat("holds ", in_flight_,
                              " micro-batches in flight, max_in_flight is ",
                              max_in_flight_);
        }
        return "";
      case Instruction::SEND_ACTIVATION:
        return Done(Instruction::FORWARD, mb) ? "" : "runs before its FORWARD";
      case Instruction::BACKWARD:
        if (!Done(Instruction::FORWARD, mb)) return "runs before its FORWARD";
        if (!is_last_ && !Done(Instruction::RECEIVE_GRADIENT, mb)) {
          return "runs before its RECEIVE_GRADIENT";
        }
        --in_flight_;
        ++num_backward_[static_cast<size_t>(mb / step_microbatches_)];
        return "";
      case Instruction::SEND_GRADIENT:
        return Done(Instruction::BACKWARD, mb) ? ""
                                               : "runs before its BACKWARD";
      default:
        return "";
    }
  }

  const int num_steps_;
  const int step_microbatches_;
  const int num_microbatches_;  // of all steps
  const int max_in_flight_;
  const bool is_first_;
  const bool is_last_;
  const size_t stage_;
  const Program& program_;
  std::vector<std::array<bool, kNumKinds>> done_;
  int in_flight_ = 0;
  std::vector<int> num_backward_;  // by step
  int num_reduced_ = 0;
  int num_applied_ = 0;
};

constexpr std::array<InstructionKind, 7> StageChecker::kMicrobatchKinds;

/// Refuses what is neither of the step, nor early, nor late.
absl::Status CheckOffsets(const std::vector<Program>& programs) {
  for (size_t stage = 0; stage < programs.size(); ++stage) {
    for (size_t i = 0; i < programs[stage].size(); ++i) {
      const Step& step = programs[stage][i];
      const bool is_late = step.kind == Instruction::APPLY;
      const bool may_be_early = !is_late && step.kind != Instruction::REDUCE;
      if (step.step_offset == (is_late ? -1 : 0) ||
          (may_be_early && step.step_offset == 1)) {
        continue;
      }
      return RefuseAt(
          stage, i, step,
          absl::StrCat("cannot be of the step at distance ", step.step_offset));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMemory(const v1::Plan& plan, const PlanLimits& limits) {
  for (size_t r = 0; r < limits.saved_bytes.size(); ++r) {
    const int in_flight = plan.stages(static_cast<int>(r)).max_in_flight();
    const double bytes = static_cast<double>(limits.saved_bytes[r]) * in_flight;
    if (bytes <= static_cast<double>(limits.memory_budget_bytes)) continue;
    return absl::ResourceExhaustedError(absl::StrCat(
        "plan refused: stage ", r, ": saved activations of ", in_flight,
        " micro-batches take ", FormatBytes(bytes), ", the budget is ",
        FormatBytes(static_cast<double>(limits.memory_budget_bytes))));
  }
  return absl::OkStatus();
}

/// An instruction and where it stands.
struct Placed {
  size_t index = 0;
  Step step;
};

std::vector<Placed> AllOfKind(const Program& program, InstructionKind kind) {
  std::vector<Placed> found;
  for (size_t i = 0; i < program.size(); ++i) {
    if (program[i].kind == kind) found.push_back({i, program[i]});
  }
  return found;
}

/// What `from` sends is what `to` receives, in the same order. Both have every
/// micro-batch once.
absl::Status CheckOrder(const std::vector<Program>& programs, size_t from,
                        InstructionKind send, size_t to,
                        InstructionKind receive) {
  const std::vector<Placed> sent = AllOfKind(programs[from], send);
  const std::vector<Placed> received = AllOfKind(programs[to], receive);
  for (size_t i = 0; i < sent.size(); ++i) {
    if (sent[i].step.microbatch == received[i].step.microbatch) continue;
    return RefuseAt(to, received[i].index, received[i].step,
                    absl::StrCat("meets micro-batch ", sent[i].step.microbatch,
                                 ", which stage ", from,
                                 " sends at instruction ", sent[i].index));
  }
  return absl::OkStatus();
}

/// Runs the programs as far as they go, counting messages only.
class AbstractRun {
 public:
  AbstractRun(const std::vector<Program>& programs, int64_t capacity)
      : programs_(programs),
        capacity_(capacity),
        position_(programs.size(), 0),
        activations_(programs.size(), 0),
        gradients_(programs.size(), 0),
        num_reduced_(programs.size(), 0) {}

  absl::Status Run() {
    bool has_moved = true;
    while (has_moved) {
      has_moved = false;
      for (size_t stage = 0; stage < programs_.size(); ++stage) {
        while (position_[stage] < programs_[stage].size() && Try(stage)) {
          ++position_[stage];
          has_moved = true;
        }
      }
    }
    for (size_t stage = 0; stage < programs_.size(); ++stage) {
      if (position_[stage] < programs_[stage].size()) return Deadlock(stage);
    }
    return absl::OkStatus();
  }

 private:
  bool Try(size_t stage) {
    switch (programs_[stage][position_[stage]].kind) {
      case Instruction::SEND_ACTIVATION:
        return Put(&activations_[stage]);
      case Instruction::RECEIVE_ACTIVATION:
        return Take(&activations_[stage - 1]);
      case Instruction::SEND_GRADIENT:
        return Put(&gradients_[stage - 1]);
      case Instruction::RECEIVE_GRADIENT:
        return Take(&gradients_[stage]);
      case Instruction::REDUCE:
        ++num_reduced_[stage];
        return true;
      case Instruction::APPLY:
        return Laggard(stage) == programs_.size();
      default:
        return true;
    }
  }
  /// A stage whose REDUCE this one's APPLY waits for; their number: none.
  size_t Laggard(size_t stage) const {
    const Step& apply = programs_[stage][position_[stage]];
    size_t other = 0;
    while (other < programs_.size() && num_reduced_[other] > apply.microbatch) {
      ++other;
    }
    return other;
  }
  bool Put(int64_t* messages) const {
    if (*messages >= capacity_) return false;
    ++*messages;
    return true;
  }
  static bool Take(int64_t* messages) {
    if (*messages == 0) return false;
    --*messages;
    return true;
  }

  /// Who the stage waits for: every stuck instruction has a peer.
  size_t Peer(size_t stage) const {
    const InstructionKind kind = programs_[stage][position_[stage]].kind;
    if (kind == Instruction::APPLY) return Laggard(stage);
    return kind == Instruction::SEND_ACTIVATION ||
                   kind == Instruction::RECEIVE_GRADIENT
               ? stage + 1
               : stage - 1;
  }

  /// Follows the waits from `stage` until two stages wait for each other, or
  /// all have been seen; a peer that has ended cannot occur, as all messages
  /// are sent and received.
  absl::Status Deadlock(size_t stage) const {
    size_t peer = Peer(stage);
    for (size_t i = 0; i < programs_.size(); ++i) {
      if (position_[peer] >= programs_[peer].size() || Peer(peer) == stage) {
        break;
      }
      stage = peer;
      peer = Peer(stage);
    }
    std::string message = absl::StrCat(
        "plan refused: deadlock: stage ", stage, ", instruction ",
        position_[stage], " (", StepText(programs_[stage][position_[stage]]),
        ") waits for stage ", peer);
    if (position_[peer] < programs_[peer].size()) {
      absl::StrAppend(&message, ", instruction ", position_[peer], " (",
                      StepText(programs_[peer][position_[peer]]),
                      "), which waits for it");
    }
    if (capacity_ != INT64_MAX) {
      absl::StrAppend(&message, "; channels hold ", capacity_, " messages");
    }
    return absl::FailedPreconditionError(message);
  }

  const std::vector<Program>& programs_;
  const int64_t capacity_;
  std::vector<size_t> position_;
  /// Messages under way over boundary b.
  std::vector<int64_t> activations_;
  std::vector<int64_t> gradients_;
  std::vector<int> num_reduced_;
};

/// Refuses a stage that touches a micro-batch before one that may be the last.
absl::Status CheckBeginsInOrder(size_t stage, const Program& program) {
  int next = 0;
  for (size_t i = 0; i < program.size(); ++i) {
    const Step& step = program[i];
    const bool begins = stage == 0
                            ? step.kind == Instruction::FORWARD
                            : step.kind == Instruction::RECEIVE_ACTIVATION;
    if (begins && step.microbatch != next++) {
      return RefuseAt(
          stage, i, step,
          absl::StrCat("expected micro-batch ", next - 1,
                       ": micro-batches whose last ones may be left "
                       "out begin in their order"));
    }
  }
  return absl::OkStatus();
}

/// What is left of a program if the step ends before micro-batch `end`: the
/// others' instructions, and the word of the end, which takes the way of an
/// activation. Where all stages know the end beforehand there is no word, which
/// leaves one message less to wait for and to make room for.
Program EndedBefore(int end, size_t stage, size_t num_stages,
                    const Program& program) {
  Program ended;
  for (const Step& step : program) {
    const bool closes =
        step.kind == Instruction::REDUCE || step.kind == Instruction::APPLY;
    if (closes || step.microbatch < end) {
      ended.push_back(step);
      continue;
    }
    if (step.microbatch > end) continue;
    const bool hears = stage == 0
                           ? step.kind == Instruction::FORWARD
                           : step.kind == Instruction::RECEIVE_ACTIVATION;
    if (!hears) continue;
    if (stage > 0) ended.push_back(step);
    if (stage + 1 < num_stages) {
      ended.push_back({Instruction::SEND_ACTIVATION, end});
    }
  }
  return ended;
}

absl::Status CheckEarlyEnds(const std::vector<Program>& programs,
                            int num_microbatches, int64_t capacity) {
  for (size_t stage = 0; stage < programs.size(); ++stage) {
    DP_RETURN_IF_ERROR(CheckBeginsInOrder(stage, programs[stage]));
  }
  for (int end = 1; end < num_microbatches; ++end) {
    std::vector<Program> ended;
    for (size_t stage = 0; stage < programs.size(); ++stage) {
      ended.push_back(
          EndedBefore(end, stage, programs.size(), programs[stage]));
    }
    DP_RETURN_IF_ERROR(
        Annotate(AbstractRun(ended, capacity).Run(),
                 absl::StrCat("if the step ends before micro-batch ", end)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPlan(const v1::Plan& plan, const PlanLimits& limits) {
  DP_RETURN_IF_ERROR(CheckShape(plan));
  if (!limits.saved_bytes.empty() &&
      limits.saved_bytes.size() != static_cast<size_t>(plan.num_stages())) {
    return absl::InvalidArgumentError(
        absl::StrCat("check plan: expected saved bytes of ", plan.num_stages(),
                     " stages, got ", limits.saved_bytes.size()));
  }
  std::vector<Program> programs = ProgramsOf(plan);
  const bool is_continuous =
      std::any_of(programs.begin(), programs.end(), IsContinuous);
  if (is_continuous) DP_RETURN_IF_ERROR(CheckOffsets(programs));
  if (is_continuous && limits.may_end_early) {
    return absl::InvalidArgumentError(
        "plan refused: steps that follow each other without a flush cannot end "
        "early");
  }
  const int num_steps = is_continuous ? kCheckedSteps : 1;
  for (size_t stage = 0; stage < programs.size(); ++stage) {
    if (is_continuous) programs[stage] = Unroll(programs[stage], num_steps);
    DP_RETURN_IF_ERROR(
        StageChecker(plan, stage, programs[stage], num_steps).Check());
  }
  DP_RETURN_IF_ERROR(CheckMemory(plan, limits));
  for (size_t b = 0; b + 1 < programs.size(); ++b) {
    DP_RETURN_IF_ERROR(CheckOrder(programs, b, Instruction::SEND_ACTIVATION,
                                  b + 1, Instruction::RECEIVE_ACTIVATION));
    DP_RETURN_IF_ERROR(CheckOrder(programs, b + 1, Instruction::SEND_GRADIENT,
                                  b, Instruction::RECEIVE_GRADIENT));
  }
  DP_RETURN_IF_ERROR(AbstractRun(programs, limits.channel_capacity).Run());
  if (!limits.may_end_early && plan.max_microbatches() == 0) {
    return absl::OkStatus();
  }
  return CheckEarlyEnds(programs, MostMicrobatches(plan),
                        limits.channel_capacity);
}

}  // namespace deltapipe
