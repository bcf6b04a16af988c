#include "coordinator/schedule/render_timeline.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/units.h"

namespace deltapipe {
namespace {

char Letter(InstructionKind kind) {
  switch (kind) {
    case v1::Instruction::FORWARD:
      return 'F';
    case v1::Instruction::BACKWARD:
      return 'B';
    case v1::Instruction::REDUCE:
      return 'R';
    case v1::Instruction::APPLY:
      return 'A';
    default:
      return '?';
  }
}

std::string Strip(const StageSimulation& stage, double step_seconds,
                  int width) {
  std::string strip(static_cast<size_t>(width), '.');
  size_t next = 0;
  for (int column = 0; column < width; ++column) {
    const double middle = (column + 0.5) / width * step_seconds;
    while (next < stage.spans.size() &&
           stage.spans[next].end_seconds <= middle) {
      ++next;
    }
    if (next == stage.spans.size()) break;
    if (stage.spans[next].begin_seconds <= middle) {
      strip[static_cast<size_t>(column)] = Letter(stage.spans[next].step.kind);
    }
  }
  return strip;
}

}  // namespace

std::string RenderTimeline(const Simulation& simulation, int width) {
  width = std::max(width, 16);
  std::string text;
  for (size_t r = 0; r < simulation.stages.size(); ++r) {
    absl::StrAppendFormat(
        &text, "stage %-4d %s\n", r,
        Strip(simulation.stages[r], simulation.step_seconds, width));
  }
  const std::string end =
      FormatDuration(std::chrono::duration_cast<std::chrono::nanoseconds>(
          std::chrono::duration<double>(simulation.step_seconds)));
  absl::StrAppendFormat(&text, "%11s%-*s%s\n", "",
                        std::max(1, width - static_cast<int>(end.size())), "0",
                        end);
  return text;
}

}  // namespace deltapipe
