// JobPrinter: events of one job as they come, for the reader at hand: JSON
// lines with --json; else a progress bar where stderr is a terminal, and
// key=value lines on stdout where that is none.
//
// Used by one thread.
#ifndef DELTAPIPE_COORDINATOR_CLI_JOB_PRINTER_H_
#define DELTAPIPE_COORDINATOR_CLI_JOB_PRINTER_H_

#include <string>

#include "base/clock.h"
#include "coordinator/cli/progress.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

class JobPrinter {
 public:
  /// `clock` is borrowed.
  JobPrinter(const std::string& name, bool json, Clock* clock);
  /// Ends the bar's line.
  ~JobPrinter();

  void OnEvent(const v1::JobEvent& event);
  /// Writes a line to stderr, above the bar.
  void Note(const std::string& line);
  /// Ends the bar's line, so that other text may follow. Idempotent.
  void Finish();

  const Progress& progress() const { return progress_; }

 private:
  void OnStep(const v1::StepSummary& step);
  /// Whether a line about workers coming and going is worth showing yet.
  bool IsWorkerNoteDue();
  void DrawBar();
  void ClearBar();

  const std::string name_;
  const bool json_;
  const bool has_bar_;
  const bool has_lines_;
  Clock* const clock_;
  Progress progress_;
  LinePacer pacer_;
  bool is_bar_shown_ = false;
  Nanos drawn_at_{0};
  bool has_worker_note_ = false;
  Nanos worker_note_at_{0};
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_JOB_PRINTER_H_
