// KubernetesLauncher: workers as pods, one Indexed Job for each Launch.
//
// For a coordinator that runs in the cluster. One thread watches the pods and
// reports their ends. Names are derived from the job's, so that a launch that
// is repeated (an answer was lost, the coordinator was started again) finds the
// Job that is there and adopts it; pods that Kubernetes replaces are workers
// with the same index. Unlike a process on this machine, a pod outlives this
// object: only Stop has it ended, within its grace, in which a worker writes a
// checkpoint.
//
//   DP_ASSIGN_OR_RETURN(auto launcher, KubernetesLauncher::Create(
//       std::move(client), options));
//   DP_RETURN_IF_ERROR(launcher->Launch(4));
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBERNETES_LAUNCHER_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBERNETES_LAUNCHER_H_

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/kubernetes/kube_client.h"
#include "coordinator/launch/launcher.h"

namespace deltapipe {

/// The annotation of a Job that says for which job it is, in full; names are
/// cut.
inline constexpr char kLaunchedFor[] = "deltapipe.io/launched-for";

struct KubernetesLauncherOptions {
  /// The id of the job that the workers are for, and the only one that they
  /// serve.
  std::string job;
  std::string device = "auto";  // as parallel.device
  /// The namespace is the client's.
  ManifestOptions manifests;
  WorkerExitCallback on_exit;  // may be null
  std::chrono::milliseconds launch_patience{30000};
  /// How long Stop tries to reach the API server; less than 2 s.
  std::chrono::milliseconds stop_patience{1800};
  /// Launch will be called again, of this or another launcher, until it
  /// succeeds: what a failed one may have made stays, to be adopted then.
  bool is_tried_again = false;
};

class KubernetesLauncher : public Launcher {
 public:
  /// INVALID_ARGUMENT: options that Kubernetes would refuse.
  static absl::StatusOr<std::unique_ptr<KubernetesLauncher>> Create(
      std::unique_ptr<KubeClient> client, KubernetesLauncherOptions options);
  /// Leaves the pods alone.
  ~KubernetesLauncher() override;

  /// OK once the API server has the Job; pods may still wait for a node. Else
  /// an error of KubeClient, ALREADY_EXISTS if the name is taken by a Job of
  /// another shape, CANCELLED by Stop.
  absl::Status Launch(int count) override;
  /// Has the Jobs deleted. Returns within 2 s; a server that cannot be reached
  /// in that time is named in the log, with the command that does the same.
  void Stop() override;
  /// Has a Launch that waits, and any later one, end with CANCELLED. The pods
  /// stay. Returns at once.
  void CancelLaunch() { launch_cancel_->Cancel(); }
  /// Those that were launched and have not ended, or run again.
  int NumRunning() override;

 private:
  struct Group {
    std::string name;
    int first_index;
    int count;
  };
  struct Pod {
    int index = 0;  // among all workers of this launcher
    bool has_ended = false;
    WorkerExit exit;  // how it ended, or what is said should it vanish
  };

  KubernetesLauncher(std::unique_ptr<KubeClient> client,
                     std::unique_ptr<CancelSignal> launch_cancel,
                     std::unique_ptr<CancelSignal> watch_cancel,
                     KubernetesLauncherOptions options);
  absl::Status CreateOrAdopt(const KubernetesObject& job, Deadline deadline);
  void DeleteJobs(const std::vector<std::string>& names,
                  const CancelSignal* cancel);
  void Halt();
  void Watch();
  void OnList(const std::vector<KubernetesObject>& pods);
  void OnChange(const KubernetesObject& pod, bool is_deleted);
  /// Adds the pod's end to `exits` if it is news.
  void Update(const KubernetesObject& pod, bool is_deleted,
              std::vector<WorkerExit>* exits) DP_REQUIRES(mutex_);
  void Report(const std::vector<WorkerExit>& exits);

  const std::unique_ptr<KubeClient> client_;
  const KubernetesLauncherOptions options_;
  const std::string label_;  // of all its pods; the name of its first Job
  const std::unique_ptr<CancelSignal> launch_cancel_;
  const std::unique_ptr<CancelSignal> watch_cancel_;

  Mutex launch_mutex_;  // held over Launch: one at a time; before mutex_
  Mutex mutex_;
  CondVar changed_;
  std::vector<Group> groups_ DP_GUARDED_BY(mutex_);
  std::map<std::string, Pod> pods_ DP_GUARDED_BY(mutex_);  // by name
  std::set<int> had_pod_ DP_GUARDED_BY(mutex_);            // indexes
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
  bool is_halted_ DP_GUARDED_BY(mutex_) = false;  // the thread is to end
  Thread thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBERNETES_LAUNCHER_H_
