// Schedule: in which order a stage runs forwards and backwards.
//
// One file and one row of schedules.def per schedule. A schedule decides only
// the order of compute; ProgramOf adds what surrounds it: loads, receives right
// before the compute that needs them, sends right after the compute that made
// them, and the closing REDUCE and APPLY. The engine runs a program on one
// compute thread; receives and decodes run ahead on other threads, encodes and
// sends behind it. Pure functions, thread-safe.
//
//   DP_ASSIGN_OR_RETURN(Schedule schedule, ParseSchedule("1f1b+3"));
//   std::vector<Program> programs = ProgramsOf(schedule, {num_stages, num_mb});
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_SCHEDULE_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_SCHEDULE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

using InstructionKind = v1::Instruction::Kind;

/// v1::Instruction without its allocation.
struct Step {
  InstructionKind kind = v1::Instruction::KIND_UNSPECIFIED;
  int microbatch = 0;
  int step_offset = 0;
};
inline bool operator==(const Step& a, const Step& b) {
  return a.kind == b.kind && a.microbatch == b.microbatch &&
         a.step_offset == b.step_offset;
}

/// What one stage does in a step, in order. It may begin the next step early
/// and end the last one late (step_offset): then steps follow each other
/// without a flush.
using Program = std::vector<Step>;

struct PipelineShape {
  int num_stages = 1;
  /// Of one replica.
  int num_microbatches = 1;
};

/// FORWARDs and BACKWARDs of `stage`, each micro-batch once in both; where
/// steps follow each other without a flush, APPLY of the last one, too.
using ComputeOrder = Program (*)(const PipelineShape& shape, int stage,
                                 int warmup_depth);

/// A row of schedules.def.
struct ScheduleRow {
  absl::string_view name;
  absl::string_view summary;
  bool takes_warmup_depth = false;
  ComputeOrder order = nullptr;
};
const std::vector<ScheduleRow>& AllSchedules();

/// A row with its parameter.
struct Schedule {
  const ScheduleRow* row = nullptr;
  /// How many more micro-batches than plain 1F1B stage 0 holds in flight. It
  /// tapers linearly to 0 at the last stage, which never waits for gradients.
  /// Negative: no stage holds more than num_stages + warmup_depth (at least 1),
  /// which saves memory and costs time.
  int warmup_depth = 0;

  /// "gpipe", "1f1b", "1f1b+3", "1f1b-2": ParseSchedule reads it.
  std::string text() const;
};

/// INVALID_ARGUMENT names what is known.
absl::StatusOr<Schedule> ParseSchedule(absl::string_view text);

/// `shape` has at least one stage and one micro-batch.
Program ProgramOf(const Schedule& schedule, const PipelineShape& shape,
                  int stage);
std::vector<Program> ProgramsOf(const Schedule& schedule,
                                const PipelineShape& shape);

/// Whether steps follow each other without a flush.
bool IsContinuous(const Program& program);

/// `num_steps` steps in a row, as the engine runs them between two moments at
/// which nothing is under way: what is ahead of the first step runs before it,
/// what is ahead of the last is left out. Micro-batches are numbered on from
/// step to step; REDUCE and APPLY carry their step.
Program Unroll(const Program& program, int num_steps);

/// The programs of a plan's stages, up to its max_microbatches.
std::vector<Program> ProgramsOf(const v1::Plan& plan);
/// The same of a step in which each replica does num_microbatches.
std::vector<Program> NominalProgramsOf(const v1::Plan& plan);
/// Replaces the stage's instructions.
void SetInstructions(const Program& program, v1::StagePlan* stage);

/// The most micro-batches that have begun FORWARD and not ended BACKWARD.
int PeakInFlight(const Program& program);

/// "RECEIVE_GRADIENT of micro-batch 3", "APPLY".
std::string StepText(const Step& step);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_SCHEDULE_H_
