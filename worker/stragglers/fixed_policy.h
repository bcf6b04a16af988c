// FixedPolicy: "drop" with a threshold that the user has chosen: no micro-batch
// begins later than tau_seconds after its step did. Measures nothing; budget,
// first micro-batch and replays are as for every policy (sync_policy.h).
#ifndef DELTAPIPE_WORKER_STRAGGLERS_FIXED_POLICY_H_
#define DELTAPIPE_WORKER_STRAGGLERS_FIXED_POLICY_H_

#include <cstdint>
#include <vector>

#include "worker/stragglers/drop_budget.h"
#include "worker/stragglers/replay_list.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {

class FixedPolicy : public SyncPolicy {
 public:
  /// options.tau_seconds is finite and more than 0.
  explicit FixedPolicy(const SyncPolicyOptions& options);

  absl::string_view name() const override { return "drop"; }
  absl::Status BeginStep(const StepStart& start) override;
  bool Admit(int microbatch, double elapsed_seconds) override;
  absl::Status EndStep(const StepObservation& observation) override;
  const RebalanceAdvice& advice() const override { return advice_; }
  StragglerGauges gauges() const override;

 private:
  const int rank_;
  const double tau_seconds_;
  const ReplayList replay_;
  const RebalanceAdvice advice_;
  DropBudget budget_;
  int64_t num_planned_ = 0;  // of observed steps
  int64_t num_dropped_ = 0;
  // The step in progress.
  const std::vector<int>* forced_ = nullptr;
  int64_t least_ = 1;  // that it must do
  bool has_ended_ = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_FIXED_POLICY_H_
