// Admission: what every policy that drops holds to when it admits micro-batches
// (sync_policy.h): a step that is done again does what it did, the first
// micro-batch always begins, no more is refused than the budget has
// (drop_budget.h), and after a refusal nothing begins.
//
// Same rules as SyncPolicy: one thread, never waits, never reads a clock.
#ifndef DELTAPIPE_WORKER_STRAGGLERS_ADMISSION_H_
#define DELTAPIPE_WORKER_STRAGGLERS_ADMISSION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "worker/stragglers/drop_budget.h"
#include "worker/stragglers/replay_list.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {

class Admission {
 public:
  explicit Admission(const SyncPolicyOptions& options);

  /// Errors as SyncPolicy::BeginStep; then nothing has changed.
  absl::Status BeginStep(const StepStart& start);
  /// Whether the step is done again.
  bool is_replay() const { return forced_ != nullptr; }
  /// Whether to begin `microbatch`, which is late after `tau_seconds`.
  bool Admit(int microbatch, double elapsed_seconds, double tau_seconds);
  /// What all replicas dropped in a step that was begun.
  void Record(int64_t step, int num_dropped) {
    budget_.Record(step, num_dropped);
  }

 private:
  const int rank_;
  const ReplayList replay_;
  DropBudget budget_;
  // The step in progress.
  const std::vector<int>* forced_ = nullptr;
  int planned_here_ = 0;
  int64_t may_drop_here_ = 0;
  bool has_ended_ = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_ADMISSION_H_
