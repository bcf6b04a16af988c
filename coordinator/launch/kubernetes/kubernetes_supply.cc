#include "coordinator/launch/kubernetes/kubernetes_supply.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/launch/kubernetes/kube_json.h"

namespace deltapipe {
namespace {

constexpr char kWorkerLabels[] =
    "app.kubernetes.io/name=deltapipe,app.kubernetes.io/component=worker";

}  // namespace

absl::StatusOr<std::unique_ptr<KubernetesSupply>> KubernetesSupply::Create(
    JobKeeperOptions options) {
  options.manifests.namespace_name = options.kube.namespace_name;
  DP_RETURN_IF_ERROR(CheckManifestOptions(options.manifests));
  DP_ASSIGN_OR_RETURN(auto client, KubeClient::Create(options.kube));
  DP_ASSIGN_OR_RETURN(auto ending, CancelSignal::Create());
  return std::unique_ptr<KubernetesSupply>(new KubernetesSupply(
      std::move(client), std::move(ending), std::move(options)));
}

KubernetesSupply::KubernetesSupply(std::unique_ptr<KubeClient> client,
                                   std::unique_ptr<CancelSignal> ending,
                                   JobKeeperOptions options)
    : options_(std::move(options)),
      client_(std::move(client)),
      ending_(std::move(ending)) {}

KubernetesSupply::~KubernetesSupply() { End(); }

void KubernetesSupply::Begin(SupplyListener listener) {
  listener_ = std::move(listener);
  sweeper_ = Thread("sweep-jobs", [this] { Sweep(); });
}

void KubernetesSupply::Want(const SuppliedJob& job) {
  absl::Status added;
  {
    MutexLock lock(&mutex_);
    BuryDone();
    const auto found = keepers_.find(job.id);
    if (found != keepers_.end() && found->second->Want(job)) return;
    added = AddKeeper(job, true);
  }
  if (added.ok()) return;
  // The listener is for other threads: its caller may be who wants.
  LOG_ERROR << job.id << ": its workers cannot be launched: " << added.message()
            << "; raise that limit, then pause and resume it";
}

void KubernetesSupply::Unwant(const std::string& job_id) {
  MutexLock lock(&mutex_);
  BuryDone();
  const auto found = keepers_.find(job_id);
  if (found != keepers_.end()) found->second->Unwant();
}

void KubernetesSupply::End() {
  std::map<std::string, std::unique_ptr<JobKeeper>> keepers;  // gone unlocked
  {
    MutexLock lock(&mutex_);
    has_ended_ = true;
    keepers.swap(keepers_);
  }
  ending_->Cancel();
  keepers.clear();
  sweeper_.Join();
}

std::string KubernetesSupply::Hint(const std::string& job_id) const {
  return absl::StrCat("Kubernetes brings them: kubectl -n ",
                      options_.kube.namespace_name, " describe job ",
                      WorkerGroupName(job_id));
}

absl::Status KubernetesSupply::AddKeeper(const SuppliedJob& job,
                                         bool is_wanted) {
  if (has_ended_) return absl::OkStatus();
  DP_ASSIGN_OR_RETURN(
      keepers_[job.id],
      JobKeeper::Create(options_, job, is_wanted,
                        [this, id = job.id](const SupplyNotice& told) {
                          listener_.on_notice(id, told);
                        }));
  return absl::OkStatus();
}

void KubernetesSupply::BuryDone() {
  for (auto it = keepers_.begin(); it != keepers_.end();) {
    it = it->second->is_done() ? keepers_.erase(it) : std::next(it);
  }
}

void KubernetesSupply::Sweep() {
  auto pause = options_.first_pause;
  std::string logged;
  for (;;) {
    const absl::Status swept = DeleteLeftovers();
    if (swept.ok() || absl::IsCancelled(swept)) return;
    const std::string text(swept.message());
    if (text != logged) {
      LOG_WARNING << "Kubernetes Jobs of finished jobs cannot be looked for, "
                     "which is tried again: "
                  << text;
      logged = text;
    }
    if (!ending_->WaitUntil(Deadline::After(pause))) return;
    pause = std::min(2 * pause, options_.longest_pause);
  }
}

absl::Status KubernetesSupply::DeleteLeftovers() {
  DP_ASSIGN_OR_RETURN(
      const std::vector<KubernetesObject> jobs,
      client_->ListJobs(kWorkerLabels, Deadline::After(options_.patience),
                        ending_.get()));
  for (const KubernetesObject& there : jobs) {
    SuppliedJob job;
    job.id = TextAt(there, {"metadata", "annotations", kLaunchedFor});
    if (job.id.empty() || !listener_.is_at_rest(job.id)) continue;
    job.num_workers =
        static_cast<int>(NumberAt(there, {"spec", "completions"}, 1));
    MutexLock lock(&mutex_);
    // One that was wanted or unwanted meanwhile has a keeper.
    if (keepers_.count(job.id) == 0) {
      DP_RETURN_IF_ERROR(AddKeeper(job, false));
    }
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
