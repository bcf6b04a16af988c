#include "coordinator/launch/kubernetes/kubernetes_launcher.h"

#include <signal.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

constexpr char kIndexLabel[] = "batch.kubernetes.io/job-completion-index";
constexpr char kJobLabel[] = "job-name";
constexpr int kFirstSignalCode = 128;
constexpr int kLastSignalCode = 192;
constexpr size_t kMostLastWords = 500;

bool HasEnded(const KubernetesObject& pod) {
  const std::string phase = TextAt(pod, {"status", "phase"});
  return phase == "Succeeded" || phase == "Failed";
}

/// How the worker ended; as if killed where Kubernetes does not say.
ChildExit ExitOf(const KubernetesObject& pod) {
  ChildExit exit;
  const KubernetesObject* const statuses =
      FindAt(pod, {"status", "containerStatuses"});
  if (statuses != nullptr && statuses->is_array() && !statuses->empty()) {
    const int code = static_cast<int>(
        NumberAt((*statuses)[0], {"state", "terminated", "exitCode"}, -1));
    if (code > kFirstSignalCode && code <= kLastSignalCode) {
      exit.signal = code - kFirstSignalCode;
      return exit;
    }
    if (code >= 0) {
      exit.code = code;
      return exit;
    }
  }
  if (TextAt(pod, {"status", "phase"}) != "Succeeded") exit.signal = SIGKILL;
  return exit;
}

/// The last line that the worker wrote, as far as Kubernetes keeps it.
std::string LastWords(const KubernetesObject& pod) {
  const KubernetesObject* const statuses =
      FindAt(pod, {"status", "containerStatuses"});
  if (statuses == nullptr || !statuses->is_array() || statuses->empty()) {
    return "";
  }
  const std::string text =
      TextAt((*statuses)[0], {"state", "terminated", "message"});
  const size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const size_t newline = text.rfind('\n', end);
  const size_t begin = newline == std::string::npos ? 0 : newline + 1;
  return text.substr(begin, std::min(end + 1 - begin, kMostLastWords));
}

int CompletionIndex(const KubernetesObject& pod) {
  for (const char* place : {"annotations", "labels"}) {
    int index = -1;
    if (absl::SimpleAtoi(TextAt(pod, {"metadata", place, kIndexLabel}),
                         &index)) {
      return index;
    }
  }
  return -1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KubernetesLauncher>> KubernetesLauncher::Create(
    std::unique_ptr<KubeClient> client, KubernetesLauncherOptions options) {
  options.manifests.namespace_name = client->options().namespace_name;
  DP_RETURN_IF_ERROR(CheckManifestOptions(options.manifests));
  DP_ASSIGN_OR_RETURN(auto launch_cancel, CancelSignal::Create());
  DP_ASSIGN_OR_RETURN(auto watch_cancel, CancelSignal::Create());
  return std::unique_ptr<KubernetesLauncher>(
      new KubernetesLauncher(std::move(client), std::move(launch_cancel),
                             std::move(watch_cancel), std::move(options)));
}

KubernetesLauncher::KubernetesLauncher(
    std::unique_ptr<KubeClient> client,
    std::unique_ptr<CancelSignal> launch_cancel,
    std::unique_ptr<CancelSignal> watch_cancel,
    KubernetesLauncherOptions options)
    : client_(std::move(client)),
      options_(std::move(options)),
      label_(WorkerGroupName(options_.job)),
      launch_cancel_(std::move(launch_cancel)),
      watch_cancel_(std::move(watch_cancel)),
      thread_("pod-watch", [this] { Watch(); }) {}

KubernetesLauncher::~KubernetesLauncher() { Halt(); }

absl::Status KubernetesLauncher::Launch(int count) {
  MutexLock one_at_a_time(&launch_mutex_);
  WorkerGroup group;
  group.label = label_;
  group.num_workers = count;
  group.device = options_.device;
  group.job = options_.job;
  {
    MutexLock lock(&mutex_);
    if (is_stopped_) {
      return absl::FailedPreconditionError("the launcher was stopped");
    }
    const size_t number = groups_.size();
    group.name = number == 0 ? label_ : absl::StrCat(label_, "-more", number);
    const int first =
        number == 0 ? 0 : groups_.back().first_index + groups_.back().count;
    groups_.push_back({group.name, first, count});
  }
  KubernetesObject job = RenderWorkerJob(group, options_.manifests);
  job["metadata"]["annotations"][kLaunchedFor] = options_.job;
  const absl::Status created =
      CreateOrAdopt(job, Deadline::After(options_.launch_patience));
  if (!created.ok() && !absl::IsAlreadyExists(created) &&
      !options_.is_tried_again) {
    // Its answer may have been lost. After a Stop it is for that to delete.
    DeleteJobs({group.name}, launch_cancel_.get());
  }
  MutexLock lock(&mutex_);
  if (!created.ok()) {
    if (!is_stopped_) groups_.pop_back();
    return Annotate(created, absl::StrCat("launch ", count, " workers as Job ",
                                          client_->options().namespace_name,
                                          "/", group.name));
  }
  // The watch lists anew: pods may have ended before their group was known.
  watch_cancel_->Cancel();
  changed_.NotifyAll();
  return absl::OkStatus();
}

absl::Status KubernetesLauncher::CreateOrAdopt(const KubernetesObject& job,
                                               Deadline deadline) {
  const std::string name = TextAt(job, {"metadata", "name"});
  auto pause = client_->options().first_pause;
  for (;;) {
    const absl::Status created =
        client_->CreateJob(job, deadline, launch_cancel_.get());
    if (!absl::IsAlreadyExists(created)) return created;
    const auto there = client_->GetJob(name, deadline, launch_cancel_.get());
    if (!there.ok() && !absl::IsNotFound(there.status())) {
      return there.status();
    }
    const bool is_leaving =
        !there.ok() || FindAt(*there, {"metadata", "deletionTimestamp"});
    if (!is_leaving) {
      const std::string owner =
          TextAt(*there, {"metadata", "annotations", kLaunchedFor});
      const int64_t count = NumberAt(*there, {"spec", "completions"}, -1);
      const int64_t wanted = NumberAt(job, {"spec", "completions"}, 0);
      if (owner == options_.job && count == wanted) return absl::OkStatus();
      return absl::AlreadyExistsError(
          absl::StrCat("there is a Job of this name for '", owner, "' with ",
                       count, " workers, expected '", options_.job, "' with ",
                       wanted, ": delete it with kubectl delete job ", name));
    }
    // An earlier one of this name is being deleted.
    const Deadline next = std::min(deadline, Deadline::After(pause));
    pause = std::min(2 * pause, client_->options().longest_pause);
    if (!launch_cancel_->WaitUntil(next)) {
      return absl::CancelledError("the launcher was stopped");
    }
    if (deadline.has_passed()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the Job ", name, " of an earlier launch is still being deleted"));
    }
  }
}

void KubernetesLauncher::Stop() {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(is_stopped_, true)) return;
  }
  launch_cancel_->Cancel();
  Halt();
  MutexLock launch_has_ended(&launch_mutex_);
  std::vector<std::string> names;
  {
    MutexLock lock(&mutex_);
    for (const Group& group : groups_) names.push_back(group.name);
    groups_.clear();
    pods_.clear();
  }
  DeleteJobs(names, nullptr);
}

void KubernetesLauncher::DeleteJobs(const std::vector<std::string>& names,
                                    const CancelSignal* cancel) {
  const Deadline deadline = Deadline::After(options_.stop_patience);
  for (const std::string& name : names) {
    const absl::Status deleted = client_->DeleteJob(name, deadline, cancel);
    if (deleted.ok() || absl::IsNotFound(deleted)) continue;
    if (absl::IsCancelled(deleted)) return;
    LOG_ERROR << "the workers of " << name << " go on: " << deleted.message()
              << "; end them with kubectl -n "
              << client_->options().namespace_name << " delete job " << name;
  }
}

void KubernetesLauncher::Halt() {
  {
    MutexLock lock(&mutex_);
    is_halted_ = true;
    watch_cancel_->Cancel();
    changed_.NotifyAll();
  }
  thread_.Join();
}

int KubernetesLauncher::NumRunning() {
  MutexLock lock(&mutex_);
  std::set<int> alive;
  for (const auto& [name, pod] : pods_) {
    if (!pod.has_ended) alive.insert(pod.index);
  }
  int num_running = 0;
  for (const Group& group : groups_) {
    for (int i = 0; i < group.count; ++i) {
      const int index = group.first_index + i;
      // One that has no pod yet is about to start.
      if (alive.count(index) > 0 || had_pod_.count(index) == 0) ++num_running;
    }
  }
  return num_running;
}

void KubernetesLauncher::Watch() {
  PodWatcher watcher;
  watcher.on_list = [this](const auto& pods) { OnList(pods); };
  watcher.on_change = [this](const KubernetesObject& pod, bool is_deleted) {
    OnChange(pod, is_deleted);
  };
  const std::string labels = absl::StrCat(
      "app.kubernetes.io/name=deltapipe,deltapipe.io/job=", label_);
  for (;;) {
    {
      MutexLock lock(&mutex_);
      changed_.Wait(lock, [this] { return is_halted_ || !groups_.empty(); });
      if (is_halted_) return;
      watch_cancel_->Reset();
    }
    const absl::Status ended = client_->WatchPods(
        labels, watcher, Deadline::Infinite(), watch_cancel_.get());
    if (absl::IsCancelled(ended)) continue;
    LOG_WARNING << "the pods of " << label_
                << " cannot be watched, trying again: " << ended.message();
    watch_cancel_->WaitUntil(Deadline::After(client_->options().longest_pause));
  }
}

void KubernetesLauncher::OnList(const std::vector<KubernetesObject>& pods) {
  std::vector<WorkerExit> exits;
  {
    MutexLock lock(&mutex_);
    std::set<std::string> listed;
    for (const KubernetesObject& pod : pods) {
      listed.insert(TextAt(pod, {"metadata", "name"}));
    }
    // What has vanished unseen was ended by force, as far as anybody knows.
    for (auto it = pods_.begin(); it != pods_.end();) {
      if (listed.count(it->first) > 0) {
        ++it;
        continue;
      }
      if (!it->second.has_ended) exits.push_back(it->second.exit);
      it = pods_.erase(it);
    }
    for (const KubernetesObject& pod : pods) Update(pod, false, &exits);
  }
  Report(exits);
}

void KubernetesLauncher::OnChange(const KubernetesObject& pod,
                                  bool is_deleted) {
  std::vector<WorkerExit> exits;
  {
    MutexLock lock(&mutex_);
    Update(pod, is_deleted, &exits);
  }
  Report(exits);
}

void KubernetesLauncher::Update(const KubernetesObject& pod, bool is_deleted,
                                std::vector<WorkerExit>* exits) {
  const std::string name = TextAt(pod, {"metadata", "name"});
  const std::string job = TextAt(pod, {"metadata", "labels", kJobLabel});
  const auto group =
      std::find_if(groups_.begin(), groups_.end(),
                   [&job](const Group& g) { return g.name == job; });
  const int index = CompletionIndex(pod);
  if (group == groups_.end() || index < 0 || index >= group->count) return;

  Pod& known = pods_[name];
  known.index = group->first_index + index;
  had_pod_.insert(known.index);
  const bool had_ended = known.has_ended;
  known.has_ended = HasEnded(pod) || is_deleted;
  known.exit.index = known.index;
  known.exit.exit = ExitOf(pod);
  known.exit.stderr_path = absl::StrCat(
      "kubectl -n ", client_->options().namespace_name, " logs ", name);
  known.exit.last_words = LastWords(pod);
  if (known.has_ended && !had_ended) exits->push_back(known.exit);
  if (is_deleted) pods_.erase(name);
}

void KubernetesLauncher::Report(const std::vector<WorkerExit>& exits) {
  if (options_.on_exit == nullptr) return;
  for (const WorkerExit& exit : exits) {
    {
      MutexLock lock(&mutex_);
      if (is_stopped_) return;
    }
    options_.on_exit(exit);
  }
}

}  // namespace deltapipe
