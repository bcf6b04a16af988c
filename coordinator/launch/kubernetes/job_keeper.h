// JobKeeper: keeps the Kubernetes Job with one job's workers as it is wanted:
// there, or gone.
//
// Made by KubernetesSupply. A thread of its own launches the Job (or adopts the
// one that is there), sees to its PodDisruptionBudget, looks at it every few
// seconds, makes it anew when it has failed, and deletes it when it is wanted
// no more; what fails is tried again after growing pauses, and told. Going away
// leaves the Job as it is.
//
//   DP_ASSIGN_OR_RETURN(auto keeper, JobKeeper::Create(
//       options, {"text-1", 4, "cpu"}, /*is_wanted=*/true, tell));
//   ...
//   keeper->Unwant();
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_JOB_KEEPER_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_JOB_KEEPER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/kubernetes/cancel_signal.h"
#include "coordinator/launch/kubernetes/kube_client.h"
#include "coordinator/launch/kubernetes/kubernetes_launcher.h"
#include "coordinator/launch/kubernetes/render_manifests.h"
#include "coordinator/launch/worker_supply.h"

namespace deltapipe {

struct JobKeeperOptions {
  KubeClientOptions kube;
  /// The namespace is the client's.
  ManifestOptions manifests;
  /// Of one launch or deletion, with the attempts that it consists of.
  std::chrono::milliseconds patience{15000};
  /// Between launches or deletions that failed: from the first to the longest.
  std::chrono::milliseconds first_pause{1000};
  std::chrono::milliseconds longest_pause{60000};
  /// How often a Job is looked at, and for how long pods may not run before
  /// that is told.
  std::chrono::milliseconds look_every{10000};
  std::chrono::milliseconds slow_start{60000};
};

class JobKeeper {
 public:
  using Tell = std::function<void(const SupplyNotice&)>;

  /// `tell` is called on this object's threads, without locks. The options are
  /// such as KubeClient and CheckManifestOptions accept. RESOURCE_EXHAUSTED: no
  /// more files.
  static absl::StatusOr<std::unique_ptr<JobKeeper>> Create(
      JobKeeperOptions options, SuppliedJob job, bool is_wanted, Tell tell);
  /// Ends what is under way; the Job stays as it is.
  ~JobKeeper();

  // Both return at once.
  /// False if the Job is gone and this object at its end: it takes another one.
  bool Want(const SuppliedJob& job);
  void Unwant();
  /// The Job was wanted no more and is gone.
  bool is_done();

 private:
  using Clock = std::chrono::steady_clock;

  JobKeeper(std::unique_ptr<KubeClient> client,
            std::unique_ptr<CancelSignal> changed, JobKeeperOptions options,
            SuppliedJob job, bool is_wanted, Tell tell);

  // All on thread_. Keep and Remove return when what is wanted has changed, or
  // what they did has to be done anew.
  void Run();
  void Keep();
  /// True once the Job is gone.
  bool Remove();
  absl::Status Launch();
  void DropLauncher();
  /// Returns when the Job is not as it should be; CANCELLED by a change.
  absl::Status Watch();
  absl::Status Look();
  /// Sees to it that the Job has a PodDisruptionBudget; says where it cannot,
  /// which the next look tries again.
  void BoundEvictions(const KubernetesObject& job);
  /// Where some pods have not run for long, says so.
  void LookAtPods(const KubernetesObject& job);
  /// NOT_FOUND: there is none, or it is not this job's.
  absl::Status Delete();
  void Change(bool is_wanted) DP_REQUIRES(mutex_);
  void TellTrouble(const std::string& text);
  void TellExit(const WorkerExit& exit);  // on the launcher's thread
  void Pause();
  std::string Place() const;  // "deltapipe/deltapipe-text-1"
  std::string Kubectl() const;

  const JobKeeperOptions options_;
  const std::string name_;  // of the Job
  const Tell tell_;
  const std::unique_ptr<KubeClient> client_;
  /// Cancelled with each change of what is wanted, and at the end.
  const std::unique_ptr<CancelSignal> changed_;
  // Of thread_.
  SuppliedJob job_;  // as it was wanted last
  std::chrono::milliseconds pause_;
  std::string trouble_;         // the last one told, and not over
  std::string bounded_uid_;     // of the Job that has a budget
  std::string budget_trouble_;  // the last one told of it
  /// A launch was cut short: its Job may turn up yet.
  bool may_turn_up_ = false;
  /// When all workers ran last, or were launched.
  Clock::time_point complete_;

  Mutex mutex_;
  /// Set by thread_, which alone uses it but for CancelLaunch.
  std::unique_ptr<KubernetesLauncher> launcher_ DP_GUARDED_BY(mutex_);
  SuppliedJob wanted_ DP_GUARDED_BY(mutex_);
  bool is_wanted_ DP_GUARDED_BY(mutex_);
  bool is_halted_ DP_GUARDED_BY(mutex_) = false;
  bool is_done_ DP_GUARDED_BY(mutex_) = false;
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_JOB_KEEPER_H_
