// KubernetesSupply: a WorkerSupply whose workers are pods, an Indexed Job for
// each job.
//
// For a coordinator in the cluster (`deltapipe coordinator --launch
// kubernetes`). Jobs have a JobKeeper each, so none waits for another's
// requests. A Job is named after its job and says in an annotation whose it is:
// by that, a coordinator that was started again finds its own, takes over those
// of unfinished jobs and deletes those of jobs at rest. Others it leaves alone.
//
//   DP_ASSIGN_OR_RETURN(options.kube, InClusterKubeOptions());
//   DP_ASSIGN_OR_RETURN(auto supply, KubernetesSupply::Create(options));
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBERNETES_SUPPLY_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBERNETES_SUPPLY_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/kubernetes/job_keeper.h"
#include "coordinator/launch/worker_supply.h"

namespace deltapipe {

class KubernetesSupply : public WorkerSupply {
 public:
  /// INVALID_ARGUMENT: options that Kubernetes would refuse (names each), or a
  /// server that is no URL.
  static absl::StatusOr<std::unique_ptr<KubernetesSupply>> Create(
      JobKeeperOptions options);
  ~KubernetesSupply() override;

  void Begin(SupplyListener listener) override;
  void Want(const SuppliedJob& job) override;
  void Unwant(const std::string& job_id) override;
  void End() override;
  std::string Hint(const std::string& job_id) const override;

 private:
  KubernetesSupply(std::unique_ptr<KubeClient> client,
                   std::unique_ptr<CancelSignal> ending,
                   JobKeeperOptions options);
  void Sweep();
  absl::Status DeleteLeftovers();
  /// RESOURCE_EXHAUSTED: no more files.
  absl::Status AddKeeper(const SuppliedJob& job, bool is_wanted)
      DP_REQUIRES(mutex_);
  void BuryDone() DP_REQUIRES(mutex_);

  const JobKeeperOptions options_;
  const std::unique_ptr<KubeClient> client_;
  const std::unique_ptr<CancelSignal> ending_;
  SupplyListener listener_;  // constant after Begin

  Mutex mutex_;  // before those of keepers
  std::map<std::string, std::unique_ptr<JobKeeper>> keepers_
      DP_GUARDED_BY(mutex_);  // by job
  bool has_ended_ DP_GUARDED_BY(mutex_) = false;
  Thread sweeper_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBERNETES_SUPPLY_H_
