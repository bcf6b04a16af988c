// AdaptivePolicy: "drop", "rebalance" and "auto": measures whole steps, decides
// (jitter_or_persistent.h), acts, and checks what came of it.
//
// Each bucket of steps goes through: 5 steps ignored, `measured_steps` whole
// ones, a decision. Then, depending on it:
//
// - dropping: tau is enforced, except in every 20th step, which stays whole, so
//   that there is something to measure with: steps in which tau was enforced
//   are right-censored and never used for planning. After `retune_steps` the
//   decision is made anew on the newest whole steps. If over the last 100
//   enforced steps the dropped share misses the prediction by more than 2
//   points, or the speed-up is below 90 % of it, whole steps are measured from
//   scratch.
// - off: every step is whole; decides anew after each `measured_steps`.
// - rebalancing: waits for other counts; decides anew likewise.
//
// Other counts or another plan revision begin everything anew.
#ifndef DELTAPIPE_WORKER_STRAGGLERS_ADAPTIVE_POLICY_H_
#define DELTAPIPE_WORKER_STRAGGLERS_ADAPTIVE_POLICY_H_

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "worker/stragglers/admission.h"
#include "worker/stragglers/jitter_or_persistent.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {

class AdaptivePolicy : public SyncPolicy {
 public:
  struct Remedies {
    bool may_drop = false;
    bool may_rebalance = false;
  };
  AdaptivePolicy(std::string name, Remedies remedies,
                 const SyncPolicyOptions& options);

  absl::string_view name() const override { return name_; }
  absl::Status BeginStep(const StepStart& start) override;
  bool Admit(int microbatch, double elapsed_seconds) override;
  absl::Status EndStep(const StepObservation& observation) override;
  const RebalanceAdvice& advice() const override { return advice_; }
  StragglerGauges gauges() const override;

 private:
  enum class Use {
    kIgnored,   // after a change, or a replay
    kWhole,     // no threshold: measures
    kEnforced,  // tau decides
  };
  /// A step that was begun and not observed yet.
  struct Begun {
    StepStart start;
    Use use;
    /// Decisions of its bucket when it began; older ones do not count any more.
    int64_t num_decisions;
  };
  struct Realised {
    double planned;
    double executed;
    double step_seconds;
  };
  struct Bucket {
    StragglerState state = StragglerState::kMeasuring;
    std::string why;
    DropPlan plan;
    int64_t num_begun = 0;  // since the last change
    int64_t num_decisions = 0;
    int64_t num_since_decision = 0;  // observed
    int64_t num_whole_since_decision = 0;
    std::deque<StepObservation> whole;
    std::deque<Realised> realised;

    double RealisedDrop() const;
    double RealisedSpeedup() const;
  };

  void NoteChange(const StepStart& start);
  void Observe(const StepObservation& observation, const Begun& begun,
               Bucket* bucket);
  absl::Status Decide(Bucket* bucket);
  /// Whether prediction and reality have parted; the sentence says how.
  bool HasMispredicted(const Bucket& bucket, std::string* why) const;
  void MeasureAnew(std::string why, Bucket* bucket);
  void CountCuts(const StepObservation& observation);

  const std::string name_;
  const Remedies remedies_;
  const SyncPolicyOptions options_;
  SlownessOptions slowness_;

  Admission admission_;
  std::map<int64_t, Bucket> buckets_;
  std::deque<Begun> begun_;
  /// By replica, of the last observed steps: was it cut?
  std::deque<std::vector<bool>> cuts_;
  uint64_t plan_revision_ = 0;
  std::vector<int> planned_;
  int64_t last_bucket_ = 0;
  RebalanceAdvice decided_advice_;
  RebalanceAdvice advice_;
  int64_t num_dropped_ = 0;
  int64_t num_mispredictions_ = 0;
  /// Whether the replica that is cut most is cut far more often than the
  /// others.
  bool has_outlier_ = false;

  // The step in progress.
  double tau_seconds_ = std::numeric_limits<double>::infinity();
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_ADAPTIVE_POLICY_H_
