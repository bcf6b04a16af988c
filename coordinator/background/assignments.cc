#include "coordinator/background/assignments.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/match.h"
#include "base/idx_file.h"
#include "base/image_model.h"
#include "base/image_options.h"
#include "base/log.h"
#include "base/units.h"

namespace deltapipe {

namespace {

std::map<std::string, int> WorkersByHost(
    const std::vector<WorkerInfo>& workers) {
  std::map<std::string, int> num_on_host;
  for (const WorkerInfo& worker : workers) ++num_on_host[worker.host];
  return num_on_host;
}

/// "cpu" or "cuda": what the spec says, else what the worker announces.
std::string DeviceOf(const v1::JobSpec& spec, const WorkerInfo& worker) {
  const std::string& wanted = spec.parallel().device();
  if (!wanted.empty() && wanted != "auto") return wanted;
  return absl::StartsWith(worker.device, "cuda") ? "cuda" : "cpu";
}

}  // namespace

int64_t LeastWorkerMemory(const std::vector<WorkerInfo>& workers) {
  std::map<std::string, int> num_on_host = WorkersByHost(workers);
  int64_t least = 0;
  for (const WorkerInfo& worker : workers) {
    const int64_t share = worker.memory_bytes / num_on_host[worker.host];
    if (share > 0 && (least == 0 || share < least)) least = share;
  }
  return least;
}

std::vector<int> ThreadsOfWorkers(const v1::JobSpec& spec,
                                  const std::vector<WorkerInfo>& workers) {
  std::map<std::string, int> num_on_host = WorkersByHost(workers);
  std::vector<int> threads;
  for (const WorkerInfo& worker : workers) {
    threads.push_back(
        spec.parallel().threads() > 0
            ? spec.parallel().threads()
            : std::max(1, worker.cores / num_on_host[worker.host]));
  }
  return threads;
}

double ComputeSlowdown(const v1::JobSpec& spec,
                       const std::vector<WorkerInfo>& workers) {
  if (WorkersByHost(workers).size() != 1) return 1;
  int num_threads = 0;
  for (const int threads : ThreadsOfWorkers(spec, workers)) {
    num_threads += threads;
  }
  int cores = 0;
  for (const WorkerInfo& worker : workers) {
    if (DeviceOf(spec, worker) == "cuda") return 1;
    cores = std::max(cores, worker.cores);
  }
  if (cores < 1) return 1;
  return std::max(1.0, static_cast<double>(num_threads) / cores);
}

std::string DeviceToProfile(const v1::JobSpec& spec,
                            const std::vector<WorkerInfo>& workers,
                            const std::string& host) {
  for (const WorkerInfo& worker : workers) {
    if (worker.host == host) return DeviceOf(spec, worker);
  }
  return "auto";
}

Nanos WaitForData(const v1::Plan& plan) {
  const double seconds = std::max(60.0, 10 * plan.predicted_step_seconds());
  // A prediction of years is a wait for ever, but one that Nanos can hold.
  return std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(std::min(seconds, 1e8)));
}

Nanos LongestModelWrite(const v1::Plan& plan) {
  double bytes = 0;
  for (const v1::StagePlan& stage : plan.stages()) {
    bytes += 4 * static_cast<double>(stage.parameters());
  }
  return std::chrono::duration_cast<Nanos>(
      std::chrono::duration<double>(std::min(bytes / 1e6, 1e8)));
}

std::vector<v1::Assignment> MakeAssignments(
    const v1::Job& job, const v1::Plan& plan,
    const std::vector<WorkerInfo>& workers) {
  const int num_replicas = job.spec().parallel().replicas();
  const std::vector<int> threads = ThreadsOfWorkers(job.spec(), workers);
  v1::Assignment common;
  common.set_job_id(job.id());
  common.set_generation(job.generation());
  *common.mutable_spec() = job.spec();
  *common.mutable_plan() = plan;
  common.set_run_folder(job.run_folder());
  common.set_checkpoint_folder(job.spec().checkpoint().folder());
  common.set_resume(job.resume());
  common.set_wait_seconds(
      std::chrono::duration<double>(WaitForData(plan)).count());
  common.set_model_seconds(
      std::chrono::duration<double>(LongestModelWrite(plan)).count());
  for (size_t rank = 0; rank < workers.size(); ++rank) {
    v1::Peer* peer = common.add_peers();
    peer->set_rank(static_cast<int>(rank));
    peer->set_stage(static_cast<int>(rank) / num_replicas);
    peer->set_replica(static_cast<int>(rank) % num_replicas);
    peer->set_worker_id(workers[rank].id);
    peer->set_data_address(workers[rank].data_address);
  }
  std::vector<v1::Assignment> assignments(workers.size(), common);
  for (size_t rank = 0; rank < workers.size(); ++rank) {
    assignments[rank].set_rank(static_cast<int>(rank));
    assignments[rank].set_threads(threads[rank]);
  }
  return assignments;
}

int64_t EstimateTrainSamples(const v1::JobSpec& spec, const PathRoots& roots) {
  if (spec.model().kind() == "synthetic") {
    return spec.model().synthetic().samples();
  }
  const auto path = roots.Resolve("data.path", spec.data().path());
  if (!path.ok()) {
    LOG_INFO << "the plan does without the size of the data: "
             << path.status().message();
    return 0;
  }
  if (IsImageModel(spec.model().kind())) {
    const auto views = ParseViewChoice(spec.data().views());
    const auto set = ReadImageSet(*path, /*is_test=*/false, 0);
    if (!views.ok() || !set.ok()) return 0;
    const int64_t limit = spec.data().samples();
    return views->count *
           (limit > 0 ? std::min(limit, set->num_images) : set->num_images);
  }
  struct stat status;
  if (spec.model().context() < 1 || stat(path->c_str(), &status) != 0) {
    return 0;
  }
  const auto limit = ParseBytes(spec.data().limit());
  const int64_t bytes =
      std::min<int64_t>(status.st_size, limit.ok() ? *limit : INT64_MAX);
  return static_cast<int64_t>(
      std::floor(static_cast<double>(bytes) * (1 - spec.data().validation()) /
                 spec.model().context()));
}

}  // namespace deltapipe
