#include "coordinator/launch/kubernetes/job_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

bool IsLeaving(const KubernetesObject& job) {
  return FindAt(job, {"metadata", "deletionTimestamp"}) != nullptr;
}

/// Why Kubernetes starts no pod of the Job any more; empty: it does.
std::string WhyOver(const KubernetesObject& job) {
  const KubernetesObject* const conditions =
      FindAt(job, {"status", "conditions"});
  if (conditions == nullptr || !conditions->is_array()) return "";
  for (const KubernetesObject& condition : *conditions) {
    const std::string type = TextAt(condition, {"type"});
    if (TextAt(condition, {"status"}) != "True") continue;
    if (type == "Complete") return "all of its workers have ended";
    if (type != "Failed") continue;
    return absl::StrCat("it has failed: ", TextAt(condition, {"reason"}), ": ",
                        TextAt(condition, {"message"}));
  }
  return "";
}

bool IsSuspended(const KubernetesObject& job) {
  const KubernetesObject* const suspend = FindAt(job, {"spec", "suspend"});
  return suspend != nullptr && suspend->is_boolean() && suspend->get<bool>();
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobKeeper>> JobKeeper::Create(
    JobKeeperOptions options, SuppliedJob job, bool is_wanted, Tell tell) {
  DP_ASSIGN_OR_RETURN(auto client, KubeClient::Create(options.kube));
  DP_ASSIGN_OR_RETURN(auto changed, CancelSignal::Create());
  return std::unique_ptr<JobKeeper>(
      new JobKeeper(std::move(client), std::move(changed), std::move(options),
                    std::move(job), is_wanted, std::move(tell)));
}

JobKeeper::JobKeeper(std::unique_ptr<KubeClient> client,
                     std::unique_ptr<CancelSignal> changed,
                     JobKeeperOptions options, SuppliedJob job, bool is_wanted,
                     Tell tell)
    : options_(std::move(options)),
      name_(WorkerGroupName(job.id)),
      tell_(std::move(tell)),
      client_(std::move(client)),
      changed_(std::move(changed)),
      job_(job),
      pause_(options_.first_pause),
      wanted_(std::move(job)),
      is_wanted_(is_wanted),
      thread_("keep-job", [this] { Run(); }) {}

JobKeeper::~JobKeeper() {
  {
    MutexLock lock(&mutex_);
    is_halted_ = true;
    changed_->Cancel();
    if (launcher_ != nullptr) launcher_->CancelLaunch();
  }
  thread_.Join();
}

bool JobKeeper::Want(const SuppliedJob& job) {
  MutexLock lock(&mutex_);
  if (is_done_) return false;
  wanted_ = job;
  Change(true);
  return true;
}

void JobKeeper::Unwant() {
  MutexLock lock(&mutex_);
  Change(false);
}

void JobKeeper::Change(bool is_wanted) {
  if (is_wanted_ == is_wanted) return;
  is_wanted_ = is_wanted;
  changed_->Cancel();
  if (launcher_ != nullptr) launcher_->CancelLaunch();
}

bool JobKeeper::is_done() {
  MutexLock lock(&mutex_);
  return is_done_;
}

void JobKeeper::Run() {
  bool was_wanted = true;
  for (;;) {
    bool is_wanted = false;
    {
      MutexLock lock(&mutex_);
      if (is_halted_) return;
      changed_->Reset();
      job_ = wanted_;
      is_wanted = is_wanted_;
    }
    if (is_wanted != was_wanted) {
      pause_ = options_.first_pause;
      trouble_.clear();
    }
    was_wanted = is_wanted;
    if (is_wanted) {
      Keep();
      DropLauncher();
    } else if (Remove()) {
      MutexLock lock(&mutex_);
      is_done_ = !is_wanted_;
      if (is_done_) return;
    }
  }
}

void JobKeeper::Keep() {
  const absl::Status launched = Launch();
  may_turn_up_ = !launched.ok();
  if (changed_->is_cancelled()) return;
  if (!launched.ok()) {
    TellTrouble(
        absl::StrCat("its workers could not be launched, which is "
                     "tried again: ",
                     launched.message()));
    Pause();
    return;
  }
  trouble_.clear();
  tell_({SupplyNotice::Kind::kLaunched,
         absl::StrCat("its ", Plural(job_.num_workers, "worker"),
                      job_.num_workers == 1 ? " is" : " are",
                      " the Kubernetes Job ", Place())});
  const absl::Status watched = Watch();
  if (absl::IsCancelled(watched)) return;
  TellTrouble(std::string(watched.message()));
  DropLauncher();
  Pause();
  if (changed_->is_cancelled()) return;
  const absl::Status deleted = Delete();
  if (!deleted.ok() && !absl::IsNotFound(deleted) &&
      !absl::IsCancelled(deleted)) {
    TellTrouble(absl::StrCat(watched.message(),
                             ", but cannot be deleted: ", deleted.message()));
  }
}

absl::Status JobKeeper::Launch() {
  KubernetesLauncherOptions options;
  options.job = job_.id;
  options.device = job_.device;
  options.manifests = options_.manifests;
  options.launch_patience = options_.patience;
  options.is_tried_again = true;
  options.on_exit = [this](const WorkerExit& exit) { TellExit(exit); };
  DP_ASSIGN_OR_RETURN(auto client, KubeClient::Create(options_.kube));
  DP_ASSIGN_OR_RETURN(
      auto launcher,
      KubernetesLauncher::Create(std::move(client), std::move(options)));
  KubernetesLauncher* const launching = launcher.get();
  {
    MutexLock lock(&mutex_);
    launcher_ = std::move(launcher);
    // Whoever changed it before had no launch to cancel.
    if (changed_->is_cancelled()) return absl::CancelledError("not wanted");
  }
  return launching->Launch(job_.num_workers);
}

void JobKeeper::DropLauncher() {
  std::unique_ptr<KubernetesLauncher> launcher;  // goes without the lock
  MutexLock lock(&mutex_);
  launcher = std::move(launcher_);
}

absl::Status JobKeeper::Watch() {
  const Clock::time_point launched = Clock::now();
  complete_ = launched;
  do {
    DP_RETURN_IF_ERROR(Look());
    if (Clock::now() - launched > options_.longest_pause) {
      pause_ = options_.first_pause;
    }
  } while (changed_->WaitUntil(Deadline::After(options_.look_every)));
  return absl::CancelledError("what is wanted has changed");
}

absl::Status JobKeeper::Look() {
  const auto job = client_->GetJob(name_, Deadline::After(options_.patience),
                                   changed_.get());
  if (absl::IsCancelled(job.status())) return job.status();
  if (absl::IsNotFound(job.status()) || (job.ok() && IsLeaving(*job))) {
    return absl::NotFoundError(absl::StrCat(
        "somebody deleted the Kubernetes Job ", Place(),
        ", which is made again: pause or cancel the job to end its workers"));
  }
  if (!job.ok()) {
    TellTrouble(absl::StrCat("its workers go on, but cannot be looked at: ",
                             job.status().message()));
    return absl::OkStatus();
  }
  const std::string why = WhyOver(*job);
  if (!why.empty()) {
    return absl::AbortedError(
        absl::StrCat("Kubernetes runs no worker of the Job ", Place(),
                     " any more, which is made again: ", why));
  }
  BoundEvictions(*job);
  LookAtPods(*job);
  return absl::OkStatus();
}

void JobKeeper::BoundEvictions(const KubernetesObject& job) {
  const std::string uid = TextAt(job, {"metadata", "uid"});
  if (uid == bounded_uid_) return;
  WorkerGroup group;
  group.name = name_;
  group.num_workers = job_.num_workers;
  ManifestOptions manifests = options_.manifests;
  manifests.namespace_name = options_.kube.namespace_name;
  const absl::Status made = client_->CreateDisruptionBudget(
      RenderWorkerBudget(group, uid, manifests),
      Deadline::After(options_.patience), changed_.get());
  // One that is there is of an earlier attempt, or of the last coordinator.
  if (made.ok() || absl::IsAlreadyExists(made)) {
    bounded_uid_ = uid;
    budget_trouble_.clear();
    return;
  }
  if (absl::IsCancelled(made)) return;
  const std::string text = absl::StrCat(
      "its workers go on without a PodDisruptionBudget, so that draining nodes "
      "may take several at once, which is tried again: ",
      made.message());
  if (text == budget_trouble_) return;
  budget_trouble_ = text;
  tell_({SupplyNotice::Kind::kTrouble, text});
}

void JobKeeper::LookAtPods(const KubernetesObject& job) {
  if (FindAt(job, {"status"}) == nullptr) return;  // just made
  const int64_t num_ready = NumberAt(job, {"status", "ready"}, 0);
  if (num_ready >= job_.num_workers) {
    complete_ = Clock::now();
    if (trouble_.empty()) return;
    trouble_.clear();
    tell_(
        {SupplyNotice::Kind::kLaunched,
         absl::StrCat("all workers of the Kubernetes Job ", Place(), " run")});
    return;
  }
  if (Clock::now() - complete_ < options_.slow_start) return;
  if (IsSuspended(job)) {
    TellTrouble(absl::StrCat("its queue has not admitted the Kubernetes Job ",
                             Place(), ": ", Kubectl(),
                             " get workloads says why"));
    return;
  }
  TellTrouble(absl::StrCat(
      "Kubernetes runs ", num_ready, " of its ",
      Plural(job_.num_workers, "worker"), ": ", Kubectl(),
      " get events --field-selector type=Warning says why (no node with room, "
      "a quota, the image, the Secret deltapipe-join)"));
}

absl::Status JobKeeper::Delete() {
  const Deadline deadline = Deadline::After(options_.patience);
  const auto job = client_->GetJob(name_, deadline, changed_.get());
  DP_RETURN_IF_ERROR(job.status());
  const std::string owner =
      TextAt(*job, {"metadata", "annotations", kLaunchedFor});
  if (owner != job_.id) return absl::NotFoundError("it is not this job's");
  if (IsLeaving(*job)) return absl::OkStatus();
  return client_->DeleteJob(name_, deadline, changed_.get());
}

bool JobKeeper::Remove() {
  const absl::Status deleted = Delete();
  if (deleted.ok()) return true;
  if (changed_->is_cancelled()) return false;
  if (absl::IsNotFound(deleted)) {
    // The server may be carrying out what nobody waits for any more.
    if (!std::exchange(may_turn_up_, false)) return true;
    Pause();
    return false;
  }
  const std::string text(deleted.message());
  if (text != trouble_) {
    LOG_WARNING << job_.id
                << ": its workers go on, which is tried again: " << text << "; "
                << Kubectl() << " delete job " << name_ << " ends them";
    trouble_ = text;
  }
  Pause();
  return false;
}

void JobKeeper::TellTrouble(const std::string& text) {
  if (text == trouble_) return;
  trouble_ = text;
  tell_({SupplyNotice::Kind::kTrouble, text});
}

void JobKeeper::TellExit(const WorkerExit& exit) {
  tell_({SupplyNotice::Kind::kWorkerEnded,
         absl::StrCat("worker ", exit.index, " of the Kubernetes Job ", Place(),
                      " ended by itself (", exit.exit.ToString(), ")",
                      exit.last_words.empty()
                          ? ""
                          : absl::StrCat(", saying: ", exit.last_words),
                      "; its log: ", exit.stderr_path)});
}

void JobKeeper::Pause() {
  changed_->WaitUntil(Deadline::After(pause_));
  pause_ = std::min(2 * pause_, options_.longest_pause);
}

std::string JobKeeper::Place() const {
  return absl::StrCat(options_.kube.namespace_name, "/", name_);
}

std::string JobKeeper::Kubectl() const {
  return absl::StrCat("kubectl -n ", options_.kube.namespace_name);
}

}  // namespace deltapipe
