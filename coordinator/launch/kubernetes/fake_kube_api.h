// FakeKubeApi: a Kubernetes API server for tests, on a port of loopback.
//
// Plain HTTP/1.1 over sockets, as much of it as KubeClient speaks. Plays the
// Job controller too: a Job's pods run as soon as it is created, and a test
// ends them by hand; what belongs to a Job goes with it. Faults are ordered
// beforehand. Thread-safe; a thread for each connection, all joined when it
// goes.
//
//   auto api = FakeKubeApi::Start();
//   api->FailNext(500, 2);
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_FAKE_KUBE_API_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_FAKE_KUBE_API_H_

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"
#include "coordinator/launch/kubernetes/render_manifests.h"

namespace deltapipe {

class FakeKubeApi {
 public:
  /// Ends the process where there is no socket to be had: a test cannot go on.
  static std::unique_ptr<FakeKubeApi> Start();
  ~FakeKubeApi();

  std::string url() const;

  /// The next `count` requests are answered with `status` and `message`.
  void FailNext(int status, int count,
                const std::string& message = "ordered by the test");
  /// The next request is carried out, and the connection cut before its answer.
  void LoseNextAnswer();
  /// The next POST is never answered, and carried out only after the next GET
  /// of that Job was answered with 404.
  void CarryOutNextPostLate();
  /// Requests with another token get 401; `on_refusal` runs before that answer.
  void RequireToken(const std::string& token, std::function<void()> on_refusal);
  /// Cuts every watch in the middle of an event.
  void CutWatches();
  /// Forgets changes until now: older watches get 410, as an event or, if
  /// `as_answer`, instead of a 200.
  void Forget(bool as_answer);
  /// Accepts requests and answers none of them.
  void Freeze();
  /// Every PodDisruptionBudget is refused with `status`; 0: none is.
  void RefuseBudgets(int status);
  /// Has a deleted Job stay, on its way out, for its next `count` GETs.
  void LetDeletedJobsLinger(int count);

  /// Ends the worker of `job` with `index`. A pod takes its place if `replace`.
  void EndPod(const std::string& job, int index, int exit_code, bool replace,
              const std::string& last_words = "");
  /// Removes its pod, as a node's loss or a force-delete does.
  void RemovePod(const std::string& job, int index);
  /// What GETs of the Job say beside its spec.
  void SetStatus(const std::string& job, const KubernetesObject& status);
  /// Removes a Job as kubectl does; its pods stay.
  void RemoveJob(const std::string& job);
  /// Adds a Job and its pods as if somebody had posted it before.
  void AddJob(const KubernetesObject& job);

  /// False after 30 s.
  bool AwaitWatches(int count);
  int num_watches();
  /// Those for watches count as "WATCH", those for PodDisruptionBudgets as
  /// "BUDGET".
  int num_requests(const std::string& method);
  std::vector<std::string> job_names();
  /// Waits until there are just these, 30 s at most; what there is then.
  std::vector<std::string> AwaitJobs(const std::vector<std::string>& names);
  KubernetesObject JobNamed(const std::string& name);
  /// Waits until there are so many PodDisruptionBudgets, 30 s at most; those
  /// that there are then.
  std::vector<KubernetesObject> AwaitBudgets(size_t count);

 private:
  struct Change {
    int64_t version;
    std::string type;
    KubernetesObject pod;
  };
  struct Connection {
    int socket;
    Thread thread;
  };
  struct Request {
    std::string method;
    std::string path;  // without the query
    std::string query;
    std::string token;
    std::string body;
  };

  explicit FakeKubeApi(int listener, int port);
  void Accept();
  void Serve(int socket);
  bool ReadRequest(int socket, Request* request);
  std::string AnswerTo(const Request& request) DP_REQUIRES(mutex_);
  std::string AnswerToJobs(const Request& request) DP_REQUIRES(mutex_);
  std::string AnswerToBudgets(const Request& request) DP_REQUIRES(mutex_);
  void KeepJob(KubernetesObject job) DP_REQUIRES(mutex_);
  void DropJob(const std::string& name) DP_REQUIRES(mutex_);
  void ServeWatch(int socket, const Request& request);
  std::string ListPods() DP_REQUIRES(mutex_);
  std::string ListJobs() DP_REQUIRES(mutex_);
  void AddPods(const KubernetesObject& job) DP_REQUIRES(mutex_);
  void AddPod(const std::string& job, int index, const KubernetesObject& labels)
      DP_REQUIRES(mutex_);
  void Publish(const std::string& type, const std::string& name)
      DP_REQUIRES(mutex_);
  std::string LivePod(const std::string& job, int index) DP_REQUIRES(mutex_);

  const int listener_;
  const int port_;
  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, KubernetesObject> jobs_ DP_GUARDED_BY(mutex_);
  std::map<std::string, KubernetesObject> budgets_ DP_GUARDED_BY(mutex_);
  std::map<std::string, KubernetesObject> pods_ DP_GUARDED_BY(mutex_);
  std::vector<Change> changes_ DP_GUARDED_BY(mutex_);
  int64_t version_ DP_GUARDED_BY(mutex_) = 100;
  int64_t forgotten_ DP_GUARDED_BY(mutex_) = 0;
  bool gone_as_answer_ DP_GUARDED_BY(mutex_) = false;
  int num_cuts_ DP_GUARDED_BY(mutex_) = 0;
  int num_watches_ DP_GUARDED_BY(mutex_) = 0;
  int num_jobs_ DP_GUARDED_BY(mutex_) = 0;  // that there ever were
  int num_pods_ DP_GUARDED_BY(mutex_) = 0;
  int budget_refusal_ DP_GUARDED_BY(mutex_) = 0;  // a status
  int num_lingering_ DP_GUARDED_BY(mutex_) = 0;
  bool is_next_post_late_ DP_GUARDED_BY(mutex_) = false;
  KubernetesObject late_job_ DP_GUARDED_BY(mutex_);  // null: none
  std::string fail_message_ DP_GUARDED_BY(mutex_);
  int fail_status_ DP_GUARDED_BY(mutex_) = 0;
  int num_failures_ DP_GUARDED_BY(mutex_) = 0;
  bool lose_answer_ DP_GUARDED_BY(mutex_) = false;
  bool is_frozen_ DP_GUARDED_BY(mutex_) = false;
  bool is_stopped_ DP_GUARDED_BY(mutex_) = false;
  std::string token_ DP_GUARDED_BY(mutex_);
  std::function<void()> on_refusal_ DP_GUARDED_BY(mutex_);
  std::map<std::string, int> num_requests_ DP_GUARDED_BY(mutex_);
  std::list<Connection> connections_ DP_GUARDED_BY(mutex_);
  Thread accepting_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_FAKE_KUBE_API_H_
