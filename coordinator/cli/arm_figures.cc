#include "coordinator/cli/arm_figures.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/units.h"
#include "coordinator/cli/table.h"

namespace deltapipe {
namespace {

constexpr int64_t kFillingSteps = 2;
constexpr size_t kLossSteps = 20;

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + middle, values.end());
  if (values.size() % 2 == 1) return values[middle];
  const double above = values[middle];
  return (above + *std::max_element(values.begin(), values.begin() + middle)) /
         2;
}

/// Bytes per step from a counter that runs since the start of the job.
template <typename Counter>
double BytesPerStep(const std::vector<v1::StepSummary>& steps,
                    Counter counter) {
  if (steps.size() < 2) return 0;
  const double bytes = static_cast<double>(counter(steps.back())) -
                       static_cast<double>(counter(steps.front()));
  return bytes /
         static_cast<double>(steps.back().step() - steps.front().step());
}

}  // namespace

ArmFigures MeasureArm(const std::string& arm,
                      const std::vector<v1::StepSummary>& steps,
                      double tokens_per_step) {
  ArmFigures figures;
  figures.arm = arm;
  std::vector<v1::StepSummary> counted;
  std::vector<double> seconds;
  for (const v1::StepSummary& step : steps) {
    if (step.step() < kFillingSteps) continue;
    counted.push_back(step);
    seconds.push_back(step.step_seconds());
  }
  figures.steps = static_cast<int64_t>(counted.size());
  figures.seconds_per_step = Median(std::move(seconds));
  if (figures.seconds_per_step > 0) {
    figures.tokens_per_second = tokens_per_step / figures.seconds_per_step;
  }
  figures.activation_bytes_per_step = BytesPerStep(
      counted,
      [](const v1::StepSummary& step) { return step.activation_wire_bytes(); });
  figures.gradient_bytes_per_step = BytesPerStep(
      counted,
      [](const v1::StepSummary& step) { return step.gradient_wire_bytes(); });
  const size_t num_losses = std::min(kLossSteps, steps.size());
  for (size_t i = steps.size() - num_losses; i < steps.size(); ++i) {
    figures.loss += steps[i].loss() / static_cast<double>(num_losses);
  }
  return figures;
}

std::vector<v1::StepSummary> StepsOfPhase(
    const std::vector<v1::StepSummary>& steps, bool compressed) {
  std::vector<v1::StepSummary> phase;
  for (const v1::StepSummary& step : steps) {
    if (step.compressed() == compressed) phase.push_back(step);
  }
  if (compressed) phase.erase(phase.begin(), phase.begin() + phase.size() / 2);
  return phase;
}

std::string ArmTable(const std::vector<ArmFigures>& arms) {
  Table table({"", "steps", "s/step", "tokens/s", "speed", "activations/step",
               "gradients/step", "loss"},
              {Align::kLeft, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight, Align::kRight, Align::kRight, Align::kRight});
  for (const ArmFigures& arm : arms) {
    const double base = arms.front().tokens_per_second;
    const bool has_speed = base > 0 && arm.tokens_per_second > 0;
    table.AddRow({arm.arm, FormatCount(arm.steps),
                  absl::StrFormat("%.3f", arm.seconds_per_step),
                  FormatCount(static_cast<int64_t>(arm.tokens_per_second)),
                  has_speed
                      ? absl::StrFormat("%.2fx", arm.tokens_per_second / base)
                      : "-",
                  FormatBytes(arm.activation_bytes_per_step),
                  FormatBytes(arm.gradient_bytes_per_step),
                  absl::StrFormat("%.3f", arm.loss)});
  }
  return table.ToString();
}

Json ArmJson(const ArmFigures& figures) {
  Json object;
  object["event"] = "arm";
  object["schema"] = "deltapipe.cli.Arm";
  object["arm"] = figures.arm;
  object["steps"] = figures.steps;
  object["seconds_per_step"] = figures.seconds_per_step;
  object["tokens_per_second"] = figures.tokens_per_second;
  object["activation_bytes_per_step"] = figures.activation_bytes_per_step;
  object["gradient_bytes_per_step"] = figures.gradient_bytes_per_step;
  object["loss"] = figures.loss;
  return object;
}

}  // namespace deltapipe
