// Steps that follow each other without a flush (schedule 2bw): while a step's
// gradients are synchronised and applied, the next one is computed.
//
// A stage's program begins the next step where 1F1B would drain. What has to
// happen between two steps of all workers (validation, checkpoints, knobs, the
// end) ends a span of steps, in whose last nothing is begun early. Such wishes
// are agreed on with a step's update; two steps later all stages know of them
// at the same place of their programs, and that step is the span's last.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/engine/training_step.h"

namespace deltapipe {
namespace {

/// From the update that agrees on something until the step before which all
/// stages have heard of it.
constexpr int64_t kStepsUntilHeard = 2;

}  // namespace

absl::Status Training::RunSpan() {
  const absl::Status status = RunContinuousSteps();
  if (!status.ok()) Cancel(status);  // wakes the update
  update_.Join();
  updating_ = nullptr;
  states_.clear();
  return status;
}

bool Training::EndsSpan(int64_t step) const {
  const int64_t done = step + 1;
  return step >= span_ends_after_ || done == spec_.train().steps() ||
         IsDue(done, spec_.train().validate_every()) ||
         IsDue(done, spec_.checkpoint().every());
}

absl::Status Training::RunContinuousSteps() {
  const auto& instructions = plan_.stages(stage_index_).instructions();
  const int last_microbatch = plan_.num_microbatches() - 1;
  // The state of a direction is that of a step after its last micro-batch.
  const auto expect = [&](const v1::Instruction& instruction,
                          const StepState& state) {
    Expect(instruction, state);
    if (instruction.microbatch() != last_microbatch) return;
    const uint32_t step = static_cast<uint32_t>(state.step);
    if (instruction.kind() == v1::Instruction::RECEIVE_ACTIVATION) {
      previous_->CommitReceived(step);
    } else if (instruction.kind() == v1::Instruction::RECEIVE_GRADIENT) {
      next_->CommitReceived(step);
    }
  };
  const auto execute = [&](const v1::Instruction& instruction, StepState* state,
                           StepState* program) -> absl::Status {
    DP_RETURN_IF_ERROR(Execute(instruction, state, program));
    if (instruction.microbatch() != last_microbatch) return absl::OkStatus();
    const uint32_t step = static_cast<uint32_t>(state->step);
    if (instruction.kind() == v1::Instruction::SEND_ACTIVATION) {
      next_->CommitSent(step);
    } else if (instruction.kind() == v1::Instruction::SEND_GRADIENT) {
      previous_->CommitSent(step);
    }
    return absl::OkStatus();
  };

  int64_t step = step_;
  span_ends_after_ = INT64_MAX;
  last_told_ = SteadyClock::now();
  StepState* state = (states_[step] = BeginStep(step)).get();
  for (const v1::Instruction& instruction : instructions) {
    if (instruction.step_offset() == 1) expect(instruction, *state);
  }
  for (const v1::Instruction& instruction : instructions) {
    if (instruction.step_offset() != 1) continue;
    DP_RETURN_IF_ERROR(execute(instruction, state, state));
  }
  while (true) {
    const bool is_last = EndsSpan(step);
    StepState* const next =
        is_last ? nullptr : (states_[step + 1] = BeginStep(step + 1)).get();
    const auto state_of = [&](const v1::Instruction& instruction) {
      return instruction.step_offset() == 1 ? next : state;
    };
    for (const v1::Instruction& instruction : instructions) {
      StepState* const of = state_of(instruction);
      if (of != nullptr) expect(instruction, *of);
    }
    for (const v1::Instruction& instruction : instructions) {
      StepState* const of = state_of(instruction);
      if (of != nullptr) DP_RETURN_IF_ERROR(execute(instruction, of, state));
    }
    if (is_last) break;
    state = next;
    ++step;
  }
  return FinishUpdate(state);
}

void Training::StartUpdate(StepState* state) {
  updating_ = state;
  update_ = Thread("update", [this, state] {
    updated_ = Annotate(Reduce(state), "REDUCE");
    if (updated_.ok()) updated_ = Annotate(Apply(state), "APPLY");
    if (!updated_.ok()) Cancel(updated_);  // the computation may wait for peers
  });
}

absl::Status Training::FinishUpdate(StepState* program) {
  if (updating_ == nullptr) return absl::OkStatus();
  const auto begin = SteadyClock::now();
  update_.Join();
  program->reduce_seconds += SecondsSince(begin);
  StepState* const state = std::exchange(updating_, nullptr);
  DP_RETURN_IF_ERROR(updated_);
  // Steps overlap: what one took is the time since the last one.
  state->begin = std::exchange(last_told_, SteadyClock::now());
  DP_RETURN_IF_ERROR(TellOfStep(state));
  step_ = state->step + 1;
  if (agreed_.stops || agreed_.pauses || agreed_.writes_checkpoint ||
      agreed_.tuning_revision > tuning_.revision()) {
    span_ends_after_ =
        std::min(span_ends_after_, state->step + kStepsUntilHeard);
  }
  if (state != program) states_.erase(state->step);
  return absl::OkStatus();
}

}  // namespace deltapipe
