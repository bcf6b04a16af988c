// WhatIf: how much shorter steps would be if some workers were as fast as the
// rest.
//
// Replays sampled steps over the very programs of the plan, with the measured
// duration of every piece of work or, where it is "fixed", its ideal one: what
// the workers take that are alike. After "Understanding Stragglers in Large
// Model Training Using What-if Analysis" (OSDI 2025), whose slowdown S and
// scores these are. Ideals: of a link the median over all links of its
// direction; of compute the mean over the stages of the median over the
// replicas of a worker's mean, so that work which a stage has too much of is
// spread, while one slow worker does not make the ideal slower; of loading, the
// median over the replicas of the stage.
//
// A stage loads all samples of a step before anything else, so that what it
// then waits for hides some of it. A link carries one tensor at a time, in the
// order of the sends; a send does not hold up its stage, a receive waits. The
// collective of a stage begins when its last replica enters and takes what that
// one measured; a step ends with the last stage's.
//
// Pure, deterministic, thread-safe; a replay takes time linear in the number of
// instructions.
//
//   DP_ASSIGN_OR_RETURN(WhatIf what_if, WhatIf::Create(schedule, steps));
//   double lost = what_if.StepSeconds() - what_if.FixedSeconds({2, 1});
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_WHAT_IF_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_WHAT_IF_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/stragglers/op_timings.h"

namespace deltapipe {

/// Workers; -1: all stages, all replicas.
struct WorkerScope {
  int stage = -1;
  int replica = -1;

  bool Contains(int other_stage, int other_replica) const {
    return (stage < 0 || stage == other_stage) &&
           (replica < 0 || replica == other_replica);
  }
};
inline bool operator==(const WorkerScope& a, const WorkerScope& b) {
  return a.stage == b.stage && a.replica == b.replica;
}

/// What of a worker is fixed. A link belongs to its sender.
struct FixedWork {
  bool compute = true;
  bool links = true;
  bool input = true;
};

struct WhatIfReport {
  double step_seconds = 0;
  double ideal_seconds = 0;
  /// step / ideal.
  double slowdown = 1;
  /// Step over ideal if all but this stage, or replica, were ideal.
  std::vector<double> stage_scores;
  std::vector<double> replica_scores;
  /// The worker with the highest score, and what fixing it alone saves.
  WorkerScope worst;
  double worst_seconds_lost = 0;
  /// What fixing the whole last stage saves, and as a share of all that could
  /// be saved.
  double last_stage_seconds_lost = 0;
  double last_stage_share = 0;
  /// The worst worker; or its stage, its replica or the last stage if that
  /// saves a fifth more.
  WorkerScope best_fix;
  double best_fix_seconds = 0;

  /// How much a worker slows the step down: the smaller one of its stage's and
  /// its replica's score, which needs stages + replicas replays only.
  double Score(int stage, int replica) const;
};

class WhatIf {
 public:
  /// INVALID_ARGUMENT if there is no step, a worker is missing, replicas'
  /// stages differ in their micro-batches, or a duration is negative or not
  /// finite.
  static absl::StatusOr<WhatIf> Create(const Schedule& schedule,
                                       std::vector<StepTimings> steps);

  // Means over the steps.

  double StepSeconds() const;
  double IdealSeconds() const;
  /// With the work of `scope` fixed, all else as measured.
  double FixedSeconds(const WorkerScope& scope,
                      const FixedWork& work = {}) const;
  /// With all but `scope` fixed.
  double OnlySeconds(const WorkerScope& scope) const;

  WhatIfReport Report() const;

 private:
  /// Durations of pieces of work of one kind that need no straggler.
  struct Ideal {
    double forward = 0;
    double backward = 0;
    double activation_send = 0;
    double gradient_send = 0;
    std::vector<double> load;    // by stage
    std::vector<double> reduce;  // by stage
  };
  struct Fix {
    WorkerScope scope;
    FixedWork work;
    /// All but the scope.
    bool is_inverted = false;
    bool is_none = false;
  };
  class Replay;

  WhatIf() = default;
  void FindIdeals();
  double MeanSeconds(const Fix& fix) const;

  std::vector<StepTimings> steps_;
  Ideal ideal_;
  /// By number of micro-batches.
  std::map<int, std::vector<Program>> programs_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_WHAT_IF_H_
