// StragglerWatch: gathers what workers trace of sampled steps and says what has
// become of the job's stragglers.
//
// Its owner (JobActor) asks every worker for a trace of as many steps as
// BeginSample says and hands in what comes. Workers begin the step after the
// request reached them, and may be a step apart: of those that all have traced
// the first one counts. What a sample costs: that many StepTrace messages per
// worker (of a span for each instruction, about 50 bytes), and a replay of the
// plan for each stage and each replica.
//
// Of one job, on its thread; no clock, no I/O.
//
//   watch.Begin(plan);
//   watch.AddReport(rank, report);     // each StepReport, for the links' times
//   AskAll(watch.BeginSample());
//   watch.AddTrace(rank, trace);       // of each worker and step
//   for (const StragglerChange& change : watch.EndSample()) ...
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_STRAGGLER_WATCH_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_STRAGGLER_WATCH_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/stragglers/op_timings.h"
#include "coordinator/stragglers/straggler_detector.h"
#include "coordinator/stragglers/straggler_memory.h"
#include "coordinator/stragglers/what_if.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// A straggler was found, or is none any more.
struct StragglerChange {
  StragglerFinding finding;
  bool is_cleared = false;
};

/// "stage 1, replica 2 (worker-5 on host-b) computes 1.52 x as long as its
/// peers: 0.21 s a step lost; cause: compute". `worker` is what stands in the
/// parentheses; none for scopes that are more than one worker.
std::string StragglerChangeText(const StragglerChange& change, int num_replicas,
                                const std::string& worker);

class StragglerWatch {
 public:
  static constexpr int kMinTracedSteps = 2;
  static constexpr int kMaxTracedSteps = 8;
  /// The last samples that the report replays.
  static constexpr size_t kReplayedSamples = 4;

  /// Forgets everything. INVALID_ARGUMENT for a schedule that is not known:
  /// then samples are ignored.
  absl::Status Begin(const v1::Plan& plan);

  void AddReport(int rank, const v1::StepReport& report);

  /// Forgets what came of a sample that never ended. How many steps all workers
  /// shall trace.
  int BeginSample();
  void AddTrace(int rank, const v1::StepTrace& trace);

  /// Judges what has come of the sample, and forgets it. FAILED_PRECONDITION:
  /// there is no step that all have traced; the next sample asks for more.
  /// INVALID_ARGUMENT: traces that do not fit the plan.
  absl::StatusOr<std::vector<StragglerChange>> EndSample();

  /// What a successor needs; generation and times of finding are the owner's.
  StragglerMemory Remember() const;
  /// Goes on where a watch of the same plan was. After Begin, before any
  /// sample.
  void Restore(const StragglerMemory& memory);

  /// The most expensive first.
  std::vector<StragglerFinding> findings() const;
  /// The last sampled step; -1: none yet.
  int64_t last_step() const { return last_step_; }
  /// Of the last kReplayedSamples; none before the first.
  const std::optional<WhatIfReport>& report() const { return report_; }

 private:
  /// One direction of a worker's links.
  struct Link {
    double send_seconds = 0;  // since the assignment began, as last reported
    std::optional<double> seconds_per_step;
  };
  struct Worker {
    bool has_reported = false;
    Link activation, gradient;
    std::map<int64_t, v1::StepTrace> traces;  // of this sample, by step
  };

  absl::StatusOr<StepTimings> TakeTimings();

  int num_stages_ = 0;
  int num_replicas_ = 0;
  Schedule schedule_;
  std::optional<StragglerDetector> detector_;
  std::vector<Worker> workers_;  // by rank
  int traced_steps_ = kMinTracedSteps;
  int64_t last_step_ = -1;
  std::optional<WhatIfReport> report_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_STRAGGLER_WATCH_H_
