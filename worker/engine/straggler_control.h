// StragglerControl: what a worker of the first stage does about late replicas:
// asks its SyncPolicy before each micro-batch, takes the times on one clock,
// and exchanges them with the other replicas.
//
//   control->BeginStep(step, revision);
//   if (!control->Admit(mb)) ... the step ends before mb ...
//   control->NoteDone(mb);                          // after its backward
//   control->EndStep(executed);
//   ... in the next step: figures() to all, Observe(what all have sent) ...
//
// One thread: that of the computation.
#ifndef DELTAPIPE_WORKER_ENGINE_STRAGGLER_CONTROL_H_
#define DELTAPIPE_WORKER_ENGINE_STRAGGLER_CONTROL_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "worker/stragglers/sync_policy.h"

namespace deltapipe {

class StragglerControl {
 public:
  /// Of replica `replica`, for assignment.plan and stragglers of its spec, with
  /// the policy `policy`. INVALID_ARGUMENT names what is wrong.
  static absl::StatusOr<std::unique_ptr<StragglerControl>> Create(
      const std::string& policy, const v1::Assignment& assignment, int replica);

  /// The clock runs from here. `revision`: another one forgets what was
  /// measured.
  absl::Status BeginStep(int64_t step, uint32_t revision);
  /// Whether to begin this micro-batch now; after the first refusal no more
  /// are.
  bool Admit(int microbatch);
  void NoteDone(int microbatch);
  void EndStep(int executed);

  /// The observation of the last step; of the same size in all replicas.
  std::vector<double> figures() const;
  /// figures() of all replicas, in order.
  absl::Status Observe(absl::Span<const std::vector<double>> by_replica);

  /// For people.
  v1::StragglerReport report() const;

 private:
  StragglerControl(std::unique_ptr<SyncPolicy> policy, int num_replicas,
                   int num_microbatches)
      : policy_(std::move(policy)),
        num_replicas_(num_replicas),
        num_microbatches_(num_microbatches) {}
  double Elapsed() const;

  const std::unique_ptr<SyncPolicy> policy_;
  const int num_replicas_;
  const int num_microbatches_;
  std::chrono::steady_clock::time_point begin_;
  int64_t step_ = -1;
  ReplicaObservation present_;
  int64_t last_step_ = -1;  // -1: none
  ReplicaObservation last_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_STRAGGLER_CONTROL_H_
