// StragglerControl: what a worker of the first stage does about late replicas:
// asks its SyncPolicy before each micro-batch, takes the times on one clock,
// exchanges them with the other replicas, and hears from replica 0 how many
// micro-batches each shall have.
//
// The policies of all replicas advise the same; but what replica 0 says holds,
// so that no rounding of another machine can part them.
//
//   control->BeginStep(step, revision, counts);
//   if (!control->Admit(mb)) ... the step ends before mb ...
//   control->NoteDone(mb);                          // after its backward
//   control->EndStep(executed);
//   ... in the next step: figures() to all, Observe(what all have sent) ...
//   ... if next_counts() are there, they hold from the step after that on ...
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

  /// The clock runs from here. Another `revision`, or other `counts` (the
  /// micro-batches of each replica), forgets what was measured.
  absl::Status BeginStep(int64_t step, uint32_t revision,
                         const std::vector<int>& counts);
  /// Whether to begin this micro-batch now; after the first refusal no more
  /// are.
  bool Admit(int microbatch);
  void NoteDone(int microbatch);
  void EndStep(int executed);

  /// The observation of the last step and the counts that are advised; of the
  /// same size in all replicas.
  std::vector<double> figures() const;
  /// figures() of all replicas, in order.
  absl::Status Observe(absl::Span<const std::vector<double>> by_replica);
  /// For the next step, by replica, the same on all of them; empty: no others
  /// than now. And who calls for them (-1: none alone), as a sentence says.
  const std::vector<int64_t>& next_counts() const { return next_counts_; }
  int advised_by() const { return advised_by_; }
  const std::string& advice() const { return advice_; }

  /// For people.
  v1::StragglerReport report() const;

 private:
  StragglerControl(std::unique_ptr<SyncPolicy> policy, int replica,
                   int num_replicas, int max_microbatches)
      : policy_(std::move(policy)),
        replica_(replica),
        num_replicas_(num_replicas),
        max_microbatches_(max_microbatches) {}
  double Elapsed() const;

  const std::unique_ptr<SyncPolicy> policy_;
  const int replica_;
  const int num_replicas_;
  const int max_microbatches_;
  std::chrono::steady_clock::time_point begin_;
  int64_t step_ = -1;
  ReplicaObservation present_;
  int64_t last_step_ = -1;  // -1: none
  ReplicaObservation last_;
  std::vector<int> counts_;  // of the step
  std::vector<int64_t> next_counts_;
  int advised_by_ = -1;
  std::string advice_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_STRAGGLER_CONTROL_H_
