#include "coordinator/cli/job_printer.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/terminal.h"

namespace deltapipe {
namespace {

constexpr std::chrono::milliseconds kBarPeriod(100);
/// Many workers arrive within a moment; one line says that they do.
constexpr std::chrono::seconds kWorkerNotePeriod(5);
/// Carriage return and "erase to the end of the line".
constexpr char kEraseLine[] = "\r\x1b[K";

}  // namespace

JobPrinter::JobPrinter(const std::string& name, bool json, Clock* clock)
    : name_(name),
      json_(json),
      has_bar_(StderrIsTerminal() && !json),
      has_lines_(!json && (!has_bar_ || isatty(STDOUT_FILENO) == 0)),
      clock_(clock) {}

JobPrinter::~JobPrinter() { Finish(); }

void JobPrinter::OnEvent(const v1::JobEvent& event) {
  if (json_) PrintData(JsonLine(EventJson(event)));
  if (event.kind() == "step") {
    OnStep(event.step());
    return;
  }
  if (json_ || event.text().empty()) return;
  if (event.kind() == "worker" && !IsWorkerNoteDue()) return;
  Note(event.kind() == "warning" ? absl::StrCat("warning: ", event.text())
                                 : event.text());
}

bool JobPrinter::IsWorkerNoteDue() {
  const Nanos now = clock_->Now();
  if (has_worker_note_ && now - worker_note_at_ < kWorkerNotePeriod) {
    return false;
  }
  has_worker_note_ = true;
  worker_note_at_ = now;
  return true;
}

void JobPrinter::OnStep(const v1::StepSummary& step) {
  progress_.Add(step);
  const Nanos now = clock_->Now();
  if (has_lines_ && pacer_.IsDue(step, now)) {
    PrintData(progress_.KeyValueLine() + "\n");
  }
  const bool is_last = StepsDone(step) >= step.total_steps();
  if (!has_bar_ ||
      (is_bar_shown_ && !is_last && now - drawn_at_ < kBarPeriod)) {
    return;
  }
  drawn_at_ = now;
  DrawBar();
}

void JobPrinter::Note(const std::string& line) {
  ClearBar();
  PrintNote(line);
  if (has_bar_ && progress_.has_steps()) DrawBar();
}

void JobPrinter::DrawBar() {
  // The last column stays free: terminals wrap there.
  const std::string bar = progress_.Bar(name_, TerminalColumns() - 1);
  std::fprintf(stderr, "%s%s", kEraseLine, bar.c_str());
  std::fflush(stderr);
  is_bar_shown_ = true;
}

void JobPrinter::ClearBar() {
  if (!is_bar_shown_) return;
  std::fputs(kEraseLine, stderr);
  is_bar_shown_ = false;
}

void JobPrinter::Finish() {
  if (!is_bar_shown_) return;
  std::fputs("\n", stderr);
  std::fflush(stderr);
  is_bar_shown_ = false;
}

}  // namespace deltapipe
