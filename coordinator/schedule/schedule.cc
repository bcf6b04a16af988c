#include "coordinator/schedule/schedule.h"

#include <algorithm>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/schedule/orders.h"

namespace deltapipe {

const std::vector<ScheduleRow>& AllSchedules() {
  static const auto* const rows = new std::vector<ScheduleRow>{
#define DP_SCHEDULE(name, function, takes_warmup_depth, summary) \
  {name, summary, takes_warmup_depth, &function},
#include "coordinator/schedule/schedules.def"
#undef DP_SCHEDULE
  };
  return *rows;
}

std::string Schedule::text() const {
  if (warmup_depth == 0) return std::string(row->name);
  return absl::StrCat(row->name, warmup_depth > 0 ? "+" : "", warmup_depth);
}

absl::StatusOr<Schedule> ParseSchedule(absl::string_view text) {
  std::string names;
  for (const ScheduleRow& row : AllSchedules()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", row.name);
    if (row.takes_warmup_depth) absl::StrAppend(&names, ", ", row.name, "+N");
    if (text.substr(0, row.name.size()) != row.name) continue;
    const absl::string_view rest = text.substr(row.name.size());
    if (rest.empty()) return Schedule{&row, 0};
    int depth = 0;
    if (row.takes_warmup_depth && (rest[0] == '+' || rest[0] == '-') &&
        absl::SimpleAtoi(rest, &depth) && std::abs(depth) <= 1'000'000) {
      return Schedule{&row, depth};
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown schedule: expected one of ", names, ", got '", text, "'"));
}

Program ProgramOf(const Schedule& schedule, const PipelineShape& shape,
                  int stage) {
  const bool is_first = stage == 0;
  const bool is_last = stage == shape.num_stages - 1;
  const Program order =
      schedule.row->order(shape, stage, schedule.warmup_depth);
  Program program;
  program.reserve(4 * order.size() + 2);
  bool has_applied = false;
  for (const Step& step : order) {
    const auto add = [&](InstructionKind kind) {
      program.push_back({kind, step.microbatch, step.step_offset});
    };
    switch (step.kind) {
      case v1::Instruction::FORWARD:
        if (is_first || is_last) add(v1::Instruction::LOAD);
        if (!is_first) add(v1::Instruction::RECEIVE_ACTIVATION);
        program.push_back(step);
        if (!is_last) add(v1::Instruction::SEND_ACTIVATION);
        break;
      case v1::Instruction::BACKWARD:
        if (!is_last) add(v1::Instruction::RECEIVE_GRADIENT);
        program.push_back(step);
        if (!is_first) add(v1::Instruction::SEND_GRADIENT);
        break;
      default:
        program.push_back(step);
        has_applied = true;
    }
  }
  program.push_back({v1::Instruction::REDUCE, 0});
  if (!has_applied) program.push_back({v1::Instruction::APPLY, 0});
  return program;
}

std::vector<Program> ProgramsOf(const Schedule& schedule,
                                const PipelineShape& shape) {
  std::vector<Program> programs;
  programs.reserve(static_cast<size_t>(shape.num_stages));
  for (int stage = 0; stage < shape.num_stages; ++stage) {
    programs.push_back(ProgramOf(schedule, shape, stage));
  }
  return programs;
}

bool IsContinuous(const Program& program) {
  for (const Step& step : program) {
    if (step.step_offset != 0) return true;
  }
  return false;
}

Program Unroll(const Program& program, int num_steps) {
  int num_microbatches = 0;
  for (const Step& step : program) {
    if (step.kind == v1::Instruction::FORWARD) ++num_microbatches;
  }
  Program unrolled;
  unrolled.reserve(program.size() * static_cast<size_t>(num_steps));
  std::vector<Step> late;
  for (int at = -1; at < num_steps; ++at) {
    for (Step step : program) {
      const int of = at + step.step_offset;
      const bool is_late = step.step_offset < 0;
      step.step_offset = 0;
      if (step.kind == v1::Instruction::REDUCE ||
          step.kind == v1::Instruction::APPLY) {
        step.microbatch = of;
      } else {
        step.microbatch += of * num_microbatches;
      }
      if (is_late && at + 1 == num_steps) late.push_back(step);
      if (of < 0 || of >= num_steps) continue;
      unrolled.push_back(step);
    }
  }
  // What the program after the last would have ended.
  for (Step step : late) {
    ++step.microbatch;
    unrolled.push_back(step);
  }
  return unrolled;
}

std::vector<Program> ProgramsOf(const v1::Plan& plan) {
  std::vector<Program> programs;
  programs.reserve(static_cast<size_t>(plan.stages_size()));
  for (const v1::StagePlan& stage : plan.stages()) {
    Program program;
    program.reserve(static_cast<size_t>(stage.instructions_size()));
    for (const v1::Instruction& instruction : stage.instructions()) {
      program.push_back({instruction.kind(), instruction.microbatch(),
                         instruction.step_offset()});
    }
    programs.push_back(std::move(program));
  }
  return programs;
}

std::vector<Program> NominalProgramsOf(const v1::Plan& plan) {
  std::vector<Program> programs = ProgramsOf(plan);
  for (Program& program : programs) {
    const auto is_beyond = [&](const Step& step) {
      return step.microbatch >= plan.num_microbatches();
    };
    program.erase(std::remove_if(program.begin(), program.end(), is_beyond),
                  program.end());
  }
  return programs;
}

void SetInstructions(const Program& program, v1::StagePlan* stage) {
  stage->clear_instructions();
  stage->mutable_instructions()->Reserve(static_cast<int>(program.size()));
  for (const Step& step : program) {
    v1::Instruction* instruction = stage->add_instructions();
    instruction->set_kind(step.kind);
    instruction->set_microbatch(step.microbatch);
    instruction->set_step_offset(step.step_offset);
  }
}

int PeakInFlight(const Program& program) {
  // Two steps show what a continuous program reaches.
  const Program steps = IsContinuous(program) ? Unroll(program, 2) : program;
  int in_flight = 0;
  int peak = 0;
  for (const Step& step : steps) {
    if (step.kind == v1::Instruction::FORWARD)
      peak = std::max(peak, ++in_flight);
    if (step.kind == v1::Instruction::BACKWARD) --in_flight;
  }
  return peak;
}

std::string StepText(const Step& step) {
  if (!v1::Instruction::Kind_IsValid(step.kind)) {
    return absl::StrCat("instruction of unknown kind ",
                        static_cast<int>(step.kind));
  }
  const std::string& name = v1::Instruction::Kind_Name(step.kind);
  if (step.kind == v1::Instruction::REDUCE ||
      step.kind == v1::Instruction::APPLY) {
    return name;
  }
  return absl::StrCat(name, " of micro-batch ", step.microbatch);
}

}  // namespace deltapipe
