// StragglerDetector: names who slows a job down, where and why, from timings of
// sampled steps (one step in ten is enough: slowness that matters lasts).
//
// Each worker's compute, sends and loading are compared, step by step, with the
// median of the other replicas of its stage, so that what concerns all cancels.
// With one replica they are compared with the worker's own first steps. Over
// the last 8 samples a worker is named if
//
// - the median of its shifts is 10 % or more,
// - 6 of the 8 are above half of that: it lasts, and
// - the median is 6 standard deviations of the noise above 0, which is measured
//   on all workers (the median absolute deviation).
//
// Without the demand for a shift of 10 % change points of noise are reported as
// often as real ones (Wu et al., "Falcon: pinpointing and mitigating stragglers
// for large-scale hybrid-parallel training", 2024). It is cleared when the
// median is below 5 %. A link's shift is of its send times, an input's is what
// loading takes longer, as a share of the worker's compute.
//
// Stages are compared with each other likewise, by the median of their replicas
// (of two the faster one): a last stage whose compute is
// above the mean of the others is an imbalance of the plan, no slow machine.
// Sequence length: where forward and backward times of the same micro-batch
// correlate by 0.9 or more and spread by 10 % or more, the samples differ.
//
// One thread at a time; deterministic; no clock.
//
//   StragglerDetector detector(schedule);
//   DP_RETURN_IF_ERROR(detector.Add(timings));
//   for (const StragglerFinding& finding : detector.findings()) ...
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_STRAGGLER_DETECTOR_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_STRAGGLER_DETECTOR_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/stragglers/op_timings.h"
#include "coordinator/stragglers/what_if.h"

namespace deltapipe {

enum class StragglerCause {
  kCompute,
  kActivationLink,  // the worker's sends to the next stage
  kGradientLink,    // the worker's sends to the stage before
  kInput,           // waits for its data
  kStageImbalance,  // all replicas of the stage; of the last one: its loss
                    // layer
  kSequenceLength,  // all workers
};
/// "compute", "activation link", ...
absl::string_view StragglerCauseName(StragglerCause cause);

struct StragglerFinding {
  /// Stage or replica -1: all.
  WorkerScope scope;
  StragglerCause cause = StragglerCause::kCompute;
  /// How much slower, as a share: 0.5 takes 1.5 times as long. Of an input: of
  /// the compute. Of sequence lengths: their spread.
  double shift = 0;
  /// By a replay with this work fixed; what overlaps hides costs nothing.
  double seconds_lost_per_step = 0;
  /// The step that completed the evidence.
  int64_t since_step = 0;

  /// "stage 2, replica 1: compute takes 1.50 times as long, 0.112 s lost per
  /// step".
  std::string text() const;
};

/// What a worker took per micro-batch in its first samples, where no other
/// replica is there to compare it with: of the work that `cause` names.
struct StragglerBaseline {
  WorkerScope scope;
  StragglerCause cause = StragglerCause::kCompute;
  std::vector<double> seconds;
};

class StragglerDetector {
 public:
  explicit StragglerDetector(Schedule schedule) : schedule_(schedule) {}

  /// Takes the timings of a sampled step, in the order of the steps. A step of
  /// another shape (stages, replicas) begins anew. Errors as WhatIf::Create;
  /// then nothing has changed.
  absl::Status Add(StepTimings timings);

  /// Forgets everything: after a change of plan.
  void Clear();

  /// Empty where a stage has several replicas.
  std::vector<StragglerBaseline> baselines() const;
  /// Goes on where another detector of the same plan was, without its samples:
  /// the findings hold until there are enough new ones to judge by. Before the
  /// first Add.
  void Restore(const std::vector<StragglerFinding>& findings,
               const std::vector<StragglerBaseline>& baselines);

  /// What holds now, the most expensive first.
  const std::vector<StragglerFinding>& findings() const { return findings_; }
  /// The last samples, at most 8, that the findings rest on.
  const std::deque<StepTimings>& samples() const { return window_; }

 private:
  enum Signal { kCompute, kActivationSend, kGradientSend, kLoad, kNumSignals };
  /// Slowness of one worker, or stage: by sample, 0 is as fast as the others.
  using Shifts = std::deque<double>;
  /// Stage, replica (-1: the stage), signal.
  struct Key {
    int stage;
    int replica;
    Signal signal;
    bool operator<(const Key& other) const;
  };

  static bool HasSignal(const WorkerTimings& worker, Signal signal);
  /// Per micro-batch.
  static double SignalSeconds(const WorkerTimings& worker, Signal signal);
  void AddShifts(const StepTimings& timings);
  double ShiftOfWorker(const StepTimings& timings, int stage, int replica,
                       Signal signal);
  void AddShift(const Key& key, double shift);
  /// The standard deviation of single shifts of a signal, of workers or stages.
  double Noise(Signal signal, bool is_stage) const;
  void Judge(int64_t step);
  void JudgeSequenceLength(int64_t step);
  /// Takes back what was restored and is not measured any more.
  void DropUnmeasured();
  static Signal SignalOf(StragglerCause cause);
  void SetFinding(const Key& key, double shift, int64_t step);
  void Price(const WhatIf& what_if);

  const Schedule schedule_;
  std::deque<StepTimings> window_;
  std::map<Key, Shifts> shifts_;
  /// One replica: each worker's first samples.
  std::map<Key, std::vector<double>> own_first_;
  std::map<Key, StragglerFinding> found_;
  std::vector<StragglerFinding> findings_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_STRAGGLER_DETECTOR_H_
