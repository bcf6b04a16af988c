// Progress of a training job as text: a bar for terminals, key=value lines
// elsewhere, JSON objects for programs.
//
// Pure: fed with step summaries, asked for text. Used by one thread.
#ifndef DELTAPIPE_COORDINATOR_CLI_PROGRESS_H_
#define DELTAPIPE_COORDINATOR_CLI_PROGRESS_H_

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "coordinator/cli/json_line.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

class Progress {
 public:
  /// Takes in the next step.
  void Add(const v1::StepSummary& step);

  /// "text  [=====>    ]  340/1000  loss 2.013  12.3k tok/s  ETA 1:45  saved
  /// 1.2 GB  (8.1x)" in at most `columns` characters; what does not fit is left
  /// out from the end.
  std::string Bar(const std::string& name, int columns) const;
  /// "step=340/1000 loss=2.0130 tokens_per_second=12345 ..."; no value has a
  /// space.
  std::string KeyValueLine() const;

  const v1::StepSummary& last() const { return last_; }
  bool has_steps() const { return last_.total_steps() > 0; }
  /// From a moving average of the step time.
  double eta_seconds() const;

 private:
  v1::StepSummary last_;
  double average_step_seconds_ = 0;
};

/// Decides when a key=value line is due: after 2 s or 20 steps, whichever comes
/// first, but not within half a second of the one before; always for the first
/// and the last step.
class LinePacer {
 public:
  bool IsDue(const v1::StepSummary& step, Nanos now);

 private:
  bool has_printed_ = false;
  int64_t printed_step_ = 0;
  Nanos printed_at_{0};
};

/// Steps that were made once `step` is: steps count from 0 in reports, from 1
/// for people and in JSON.
int64_t StepsDone(const v1::StepSummary& step);

/// {"event":"step","step":..,"loss":..,...}: numbers as JSON numbers; the first
/// step is 1, the last total_steps.
Json StepJson(const v1::StepSummary& step);
/// {"frames_resent":..,"bad_checksums":..,...}: since the start.
Json FaultsJson(const v1::FaultCounters& faults);

/// "0:42", "12:05", "1:02:03".
std::string ClockText(double seconds);
/// "8.1x" of raw over wire; "-" where there is nothing.
std::string RatioText(double raw_bytes, double wire_bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_PROGRESS_H_
