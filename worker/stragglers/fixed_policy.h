// FixedPolicy: "drop" with a threshold that the user has chosen: no micro-batch
// begins later than tau_seconds after its step did. Measures nothing; budget,
// first micro-batch and replays are as for every policy (admission.h).
#ifndef DELTAPIPE_WORKER_STRAGGLERS_FIXED_POLICY_H_
#define DELTAPIPE_WORKER_STRAGGLERS_FIXED_POLICY_H_

#include <cstdint>

#include "worker/stragglers/admission.h"
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
  const double tau_seconds_;
  const RebalanceAdvice advice_;
  Admission admission_;
  int64_t num_planned_ = 0;  // of observed steps
  int64_t num_dropped_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STRAGGLERS_FIXED_POLICY_H_
