// KubeClient: the six calls of the Kubernetes API that the launcher makes.
//
// Thread-safe; every call blocks until its deadline at most and ends at once
// with CANCELLED when its signal is cancelled. Reads the token for each
// request, since the kubelet replaces it about every hour. Tries again, with
// growing pauses, where that can help: no connection, 429, 500, 502, 503, 504,
// and 401 if the token has changed meanwhile. Never reads a Secret and stays
// in its namespace.
//
//   DP_ASSIGN_OR_RETURN(KubeClientOptions options, InClusterKubeOptions());
//   DP_ASSIGN_OR_RETURN(auto client, KubeClient::Create(options));
//   DP_RETURN_IF_ERROR(client->CreateJob(job, deadline, &cancel));
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBE_CLIENT_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBE_CLIENT_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "coordinator/launch/kubernetes/cancel_signal.h"
#include "coordinator/launch/kubernetes/render_manifests.h"

namespace deltapipe {

struct KubeClientOptions {
  /// "https://10.96.0.1:443"; plain HTTP on loopback only.
  std::string server;
  std::string namespace_name;
  std::string token_path;  // empty: no token
  std::string ca_path;
  /// Of one attempt.
  std::chrono::milliseconds request_timeout{10000};
  /// Pauses between attempts: from the first to the longest.
  std::chrono::milliseconds first_pause{200};
  std::chrono::milliseconds longest_pause{5000};
  /// After which the server is asked to end a watch, which is then renewed.
  std::chrono::seconds watch_time{240};
};

/// From the environment and the folder that Kubernetes gives a pod with a
/// service account. FAILED_PRECONDITION: this process runs in no such pod.
absl::StatusOr<KubeClientOptions> InClusterKubeOptions(
    const std::string& folder =
        "/var/run/secrets/kubernetes.io/serviceaccount");

/// Called on the thread that watches.
struct PodWatcher {
  /// All pods: at first, and again where changes may have been missed.
  std::function<void(const std::vector<KubernetesObject>&)> on_list;
  std::function<void(const KubernetesObject&, bool is_deleted)> on_change;
};

class KubeClient {
 public:
  /// INVALID_ARGUMENT: the server is no URL, or plain HTTP off loopback.
  static absl::StatusOr<std::unique_ptr<KubeClient>> Create(
      KubeClientOptions options);

  /// ALREADY_EXISTS: there is one of this name, which may be that of an
  /// attempt whose answer was lost. RESOURCE_EXHAUSTED: a quota of the
  /// namespace is used up. All calls: PERMISSION_DENIED, UNAUTHENTICATED,
  /// INVALID_ARGUMENT (with the server's words), UNAVAILABLE or
  /// DEADLINE_EXCEEDED (after the last attempt), CANCELLED.
  absl::Status CreateJob(const KubernetesObject& job, Deadline deadline,
                         const CancelSignal* cancel);
  /// NOT_FOUND.
  absl::StatusOr<KubernetesObject> GetJob(const std::string& name,
                                          Deadline deadline,
                                          const CancelSignal* cancel);
  /// All Jobs with these labels ("a=b,c=d").
  absl::StatusOr<std::vector<KubernetesObject>> ListJobs(
      const std::string& labels, Deadline deadline, const CancelSignal* cancel);
  /// ALREADY_EXISTS: as CreateJob.
  absl::Status CreateDisruptionBudget(const KubernetesObject& budget,
                                      Deadline deadline,
                                      const CancelSignal* cancel);
  /// Its pods end in the background, within their grace, and what belongs to it
  /// goes. NOT_FOUND.
  absl::Status DeleteJob(const std::string& name, Deadline deadline,
                         const CancelSignal* cancel);
  /// Watches the pods with these labels ("a=b,c=d") until `cancel`, the
  /// deadline or an error that trying again does not mend. Lists anew when the
  /// server no longer has the changes since the last one seen (410).
  absl::Status WatchPods(const std::string& labels, const PodWatcher& watcher,
                         Deadline deadline, const CancelSignal* cancel);

  const KubeClientOptions& options() const { return options_; }

 private:
  explicit KubeClient(KubeClientOptions options)
      : options_(std::move(options)) {}
  absl::StatusOr<KubernetesObject> Call(const std::string& method,
                                        const std::string& path,
                                        const KubernetesObject* body,
                                        Deadline deadline,
                                        const CancelSignal* cancel);
  absl::StatusOr<std::string> ListPods(const std::string& query,
                                       const PodWatcher& watcher,
                                       Deadline deadline,
                                       const CancelSignal* cancel);
  absl::Status FollowPods(const std::string& query, const PodWatcher& watcher,
                          std::string* version, Deadline deadline,
                          const CancelSignal* cancel);

  const KubeClientOptions options_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBE_CLIENT_H_
