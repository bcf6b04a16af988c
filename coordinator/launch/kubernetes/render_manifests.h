// RenderManifests: the Kubernetes objects that run the workers of a job.
//
// Called by `deltapipe render`, which prints them for kubectl, and by
// KubernetesLauncher and JobKeeper, which post the Job and its budget. Pure:
// the same spec and options give the same bytes. Never submits anything to a
// coordinator: the workers join the one that they are told, and it places jobs
// on them. The namespace, its network policies and its accounts are those of
// deploy/kubernetes/base.
//
//   DP_ASSIGN_OR_RETURN(const auto manifests, RenderManifests(spec, options));
//   std::cout << ManifestsYaml(manifests);
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_RENDER_MANIFESTS_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_RENDER_MANIFESTS_H_

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

using KubernetesObject = nlohmann::ordered_json;

struct ManifestOptions {
  /// With a tag other than "latest", or a digest.
  std::string image = "deltapipe-worker:0.1.0";
  std::string namespace_name = "deltapipe";
  /// Empty: the Service of deploy/kubernetes/base in that namespace.
  std::string coordinator;
  /// -1: one if the workers are to compute on cuda, else none.
  int gpus_per_worker = -1;
  /// What a worker asks for, as Kubernetes writes it; empty: "1" and "2Gi", of
  /// a worker with GPUs "4" and "16Gi". Twice the memory is the limit.
  std::string cpu;
  std::string memory;
  /// How long the longest checkpoint takes; a pod that is to end gets twice
  /// that, and 30 s at least.
  std::chrono::seconds checkpoint_time{60};
  /// PersistentVolumeClaims for /data (read-only) and /checkpoints; empty:
  /// none.
  std::string data_claim;
  std::string checkpoint_claim;
  /// A LocalQueue of Kueue that admits the Job; empty: it starts at once.
  std::string queue;
  std::string priority_class;  // empty: none
};

/// Workers that are one Indexed Job.
struct WorkerGroup {
  std::string name;  // of the Job: see WorkerGroupName
  /// The value of deltapipe.io/job, by which policies and watches find the
  /// pods; empty: `name`.
  std::string label;
  int num_workers = 1;
  std::string device = "auto";  // as parallel.device
  /// The id of the only job that the workers shall serve; empty: any.
  std::string job;
};

/// "deltapipe-NAME": a DNS label with room for an index behind it. Long names
/// and those that a label cannot hold are cut and end in a hash of the whole.
std::string WorkerGroupName(const std::string& name);

/// INVALID_ARGUMENT, naming every option that Kubernetes would refuse.
absl::Status CheckManifestOptions(const ManifestOptions& options);

/// The Indexed Job of `group`; the options are checked.
KubernetesObject RenderWorkerJob(const WorkerGroup& group,
                                 const ManifestOptions& options);

/// The PodDisruptionBudget by which the pods of `group` are evicted one by one.
/// `job_uid` is that of its Job in the API server: the budget belongs to the
/// Job, with which Kubernetes deletes it, and is named after both, so that it
/// is another one than that of an earlier Job of this name on its way out.
KubernetesObject RenderWorkerBudget(const WorkerGroup& group,
                                    const std::string& job_uid,
                                    const ManifestOptions& options);

/// What runs stages x replicas workers for `spec` (valid, defaults filled in):
/// a ConfigMap with the spec, a headless Service, a PodDisruptionBudget and the
/// Job. INVALID_ARGUMENT as CheckManifestOptions.
absl::StatusOr<std::vector<KubernetesObject>> RenderManifests(
    const v1::JobSpec& spec, const ManifestOptions& options);

/// One YAML document each. Strings that YAML could read as something else are
/// quoted.
std::string ManifestsYaml(const std::vector<KubernetesObject>& manifests);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_RENDER_MANIFESTS_H_
