#include "coordinator/cli/progress.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/units.h"
#include "coordinator/cli/table.h"

namespace deltapipe {
namespace {

constexpr int kWidestBar = 30;
constexpr int kNarrowestBar = 6;
/// The weight of the newest step in the moving average.
constexpr double kNewestWeight = 0.1;

constexpr std::chrono::seconds kLinePeriod(2);
constexpr std::chrono::milliseconds kShortestLinePeriod(500);
constexpr int64_t kLineSteps = 20;

double RawBytes(const v1::StepSummary& step) {
  return static_cast<double>(step.activation_raw_bytes()) +
         static_cast<double>(step.gradient_raw_bytes());
}

double WireBytes(const v1::StepSummary& step) {
  return static_cast<double>(step.activation_wire_bytes()) +
         static_cast<double>(step.gradient_wire_bytes());
}

std::string ShortCount(double count) {
  if (count < 10000) return absl::StrFormat("%.0f", count);
  if (count < 1e6) return absl::StrFormat("%.1fk", count / 1e3);
  return absl::StrFormat("%.1fM", count / 1e6);
}

std::string RightPadded(std::string text, size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string LeftPadded(std::string text, size_t width) {
  if (text.size() < width) text.insert(0, width - text.size(), ' ');
  return text;
}

std::string BarText(double share, int width) {
  share = std::clamp(share, 0.0, 1.0);
  const int filled = static_cast<int>(std::floor(share * width));
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < width) bar += '>';
  bar.resize(static_cast<size_t>(width), ' ');
  return absl::StrCat("[", bar, "]");
}

}  // namespace

void Progress::Add(const v1::StepSummary& step) {
  last_ = step;
  const double seconds = step.step_seconds();
  average_step_seconds_ = average_step_seconds_ == 0
                              ? seconds
                              : (1 - kNewestWeight) * average_step_seconds_ +
                                    kNewestWeight * seconds;
}

double Progress::eta_seconds() const {
  const double left =
      static_cast<double>(last_.total_steps() - StepsDone(last_));
  return std::max(0.0, left) * average_step_seconds_;
}

std::string Progress::Bar(const std::string& name, int columns) const {
  const std::string total = absl::StrCat(last_.total_steps());
  const std::string count = absl::StrCat(
      LeftPadded(absl::StrCat(StepsDone(last_)), total.size()), "/", total);
  // Facts have fixed widths, so that the line stands still from step to step.
  std::vector<std::string> facts = {
      RightPadded(absl::StrFormat("loss %.3f", last_.loss()), 10),
      RightPadded(absl::StrCat(ShortCount(last_.tokens_per_second()), " tok/s"),
                  12),
      RightPadded(absl::StrCat("ETA ", ClockText(eta_seconds())), 9)};
  const double raw = RawBytes(last_);
  const double wire = WireBytes(last_);
  if (raw > wire) {
    facts.push_back(
        RightPadded(absl::StrCat("saved ", FormatBytes(raw - wire)), 13));
    facts.push_back(
        RightPadded(absl::StrCat("(", RatioText(raw, wire), ")"), 7));
  }

  const auto width_of = [&](size_t num_facts) {
    int width = TextWidth(name) + 2 + TextWidth(count) + 1;
    for (size_t i = 0; i < num_facts; ++i) width += 2 + TextWidth(facts[i]);
    return width;
  };
  // The brackets take two columns.
  size_t num_facts = facts.size();
  while (num_facts > 0 && width_of(num_facts) + kNarrowestBar + 2 > columns) {
    --num_facts;
  }
  const int bar_width = std::min(kWidestBar, columns - width_of(num_facts) - 2);
  std::string line = name + "  ";
  if (bar_width >= kNarrowestBar) {
    const double share = static_cast<double>(StepsDone(last_)) /
                         std::max<double>(1, last_.total_steps());
    line += BarText(share, bar_width) + " ";
  }
  line += count;
  for (size_t i = 0; i < num_facts; ++i) line += "  " + facts[i];
  line.erase(line.find_last_not_of(' ') + 1);
  if (TextWidth(line) <= columns) return line;
  return count.substr(0, static_cast<size_t>(std::max(0, columns)));
}

std::string Progress::KeyValueLine() const {
  std::string line = absl::StrFormat("step=%d/%d loss=%.4f", StepsDone(last_),
                                     last_.total_steps(), last_.loss());
  if (last_.validation_loss() > 0) {
    absl::StrAppendFormat(&line, " validation_loss=%.4f",
                          last_.validation_loss());
  }
  if (last_.has_validation_accuracy()) {
    absl::StrAppendFormat(&line, " validation_accuracy=%.4f",
                          last_.validation_accuracy());
  }
  absl::StrAppendFormat(
      &line,
      " tokens_per_second=%.0f step_seconds=%.3f gradient_norm=%.3g lr=%.3g "
      "compressed=%s eta_seconds=%.0f",
      last_.tokens_per_second(), last_.step_seconds(), last_.gradient_norm(),
      last_.learning_rate(), last_.compressed() ? "yes" : "no", eta_seconds());
  absl::StrAppendFormat(
      &line,
      " activation_wire_bytes=%d activation_ratio=%s gradient_wire_bytes=%d "
      "gradient_ratio=%s",
      last_.activation_wire_bytes(),
      RatioText(static_cast<double>(last_.activation_raw_bytes()),
                static_cast<double>(last_.activation_wire_bytes())),
      last_.gradient_wire_bytes(),
      RatioText(static_cast<double>(last_.gradient_raw_bytes()),
                static_cast<double>(last_.gradient_wire_bytes())));
  if (last_.skipped()) line += " skipped=yes";
  return line;
}

bool LinePacer::IsDue(const v1::StepSummary& step, Nanos now) {
  const bool is_last = StepsDone(step) >= step.total_steps();
  const bool is_due = !has_printed_ || is_last ||
                      now - printed_at_ >= kLinePeriod ||
                      (step.step() - printed_step_ >= kLineSteps &&
                       now - printed_at_ >= kShortestLinePeriod);
  if (!is_due) return false;
  has_printed_ = true;
  printed_step_ = step.step();
  printed_at_ = now;
  return true;
}

int64_t StepsDone(const v1::StepSummary& step) { return step.step() + 1; }

Json StepJson(const v1::StepSummary& step) {
  Json object;
  object["event"] = "step";
  object["schema"] = "deltapipe.v1.StepSummary";
  object["step"] = StepsDone(step);
  object["total_steps"] = step.total_steps();
  object["loss"] = step.loss();
  if (step.validation_loss() > 0) {
    object["validation_loss"] = step.validation_loss();
  }
  if (step.has_validation_accuracy()) {
    object["validation_accuracy"] = step.validation_accuracy();
  }
  object["gradient_norm"] = step.gradient_norm();
  object["learning_rate"] = step.learning_rate();
  object["step_seconds"] = step.step_seconds();
  object["tokens_per_second"] = step.tokens_per_second();
  object["compressed"] = step.compressed();
  object["skipped"] = step.skipped();
  object["activation_raw_bytes"] = step.activation_raw_bytes();
  object["activation_wire_bytes"] = step.activation_wire_bytes();
  object["gradient_raw_bytes"] = step.gradient_raw_bytes();
  object["gradient_wire_bytes"] = step.gradient_wire_bytes();
  object["compute_seconds"] = step.compute_seconds();
  object["wait_seconds"] = step.wait_seconds();
  object["reduce_seconds"] = step.reduce_seconds();
  object["faults"] = FaultsJson(step.faults());
  return object;
}

Json FaultsJson(const v1::FaultCounters& faults) {
  Json object;
  object["frames_resent"] = faults.frames_resent();
  object["bad_checksums"] = faults.bad_checksums();
  object["gaps"] = faults.gaps();
  object["keyframes"] = faults.keyframes();
  object["refused"] = faults.refused();
  return object;
}

std::string ClockText(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  const int64_t whole = static_cast<int64_t>(std::llround(seconds));
  const int64_t hours = whole / 3600;
  const int64_t minutes = whole / 60 % 60;
  if (hours > 0) {
    return absl::StrFormat("%d:%02d:%02d", hours, minutes, whole % 60);
  }
  return absl::StrFormat("%d:%02d", minutes, whole % 60);
}

std::string RatioText(double raw_bytes, double wire_bytes) {
  if (!(raw_bytes > 0) || !(wire_bytes > 0)) return "-";
  return absl::StrFormat("%.1fx", raw_bytes / wire_bytes);
}

}  // namespace deltapipe
