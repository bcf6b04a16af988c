#include "coordinator/launch/kubernetes/render_manifests.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

using Object = KubernetesObject;

constexpr int kDataPort = 7708;
constexpr int kUserId = 65532;
// A pod is called NAME-INDEX-xxxxx, its host NAME-INDEX: 63 characters.
constexpr size_t kLongestGroupName = 52;
// Of a uid, which is random.
constexpr size_t kUidBeginning = 8;

/// FNV-1a: names must never change, and no secret is at stake.
std::string ShortHash(absl::string_view text) {
  uint32_t hash = 2166136261u;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  }
  return absl::StrCat(absl::Hex(hash, absl::kZeroPad8));
}

bool IsDnsLabel(absl::string_view text) {
  const auto is_part = [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  };
  return !text.empty() && text.size() <= 63 && text.front() != '-' &&
         text.back() != '-' && std::all_of(text.begin(), text.end(), is_part);
}

/// A number and a unit: "500m", "2", "1.5", "16Gi".
bool IsQuantity(absl::string_view text) {
  size_t end = 0;
  while (end < text.size() &&
         (absl::ascii_isdigit(text[end]) || text[end] == '.')) {
    ++end;
  }
  double number = 0;
  if (!absl::SimpleAtod(text.substr(0, end), &number) || number <= 0) {
    return false;
  }
  const absl::string_view unit = text.substr(end);
  for (const char* known :
       {"", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"}) {
    if (unit == known) return true;
  }
  return false;
}

bool IsPinned(absl::string_view image) {
  if (absl::StrContains(image, "@sha256:")) return true;
  const size_t colon = image.rfind(':');
  if (colon == absl::string_view::npos) return false;
  const absl::string_view tag = image.substr(colon + 1);
  // A colon before a slash is of the registry's port.
  return !tag.empty() && tag != "latest" && !absl::StrContains(tag, "/");
}

bool IsHostPort(absl::string_view text) {
  const size_t colon = text.rfind(':');
  int port = 0;
  return colon != absl::string_view::npos && colon > 0 &&
         !absl::StrContains(text, " ") &&
         absl::SimpleAtoi(text.substr(colon + 1), &port) && port > 0 &&
         port < 65536;
}

std::string CoordinatorOf(const ManifestOptions& options) {
  if (!options.coordinator.empty()) return options.coordinator;
  return absl::StrCat("deltapipe.", options.namespace_name, ".svc:7707");
}

const std::string& LabelOf(const WorkerGroup& group) {
  return group.label.empty() ? group.name : group.label;
}

int GpusOf(const WorkerGroup& group, const ManifestOptions& options) {
  if (options.gpus_per_worker >= 0) return options.gpus_per_worker;
  return group.device == "cuda" ? 1 : 0;
}

/// Twice `quantity`, in its own unit.
std::string Twice(const std::string& quantity) {
  const size_t end =
      std::min(quantity.find_first_not_of("0123456789."), quantity.size());
  double number = 0;
  // It was checked.
  if (!absl::SimpleAtod(quantity.substr(0, end), &number)) return quantity;
  return absl::StrCat(2 * number, quantity.substr(end));
}

Object Labels(const std::string& name) {
  return {{"app.kubernetes.io/name", "deltapipe"},
          {"app.kubernetes.io/component", "worker"},
          {"deltapipe.io/job", name}};
}

Object Metadata(const std::string& name, const ManifestOptions& options) {
  return {{"name", name},
          {"namespace", options.namespace_name},
          {"labels", Labels(name)}};
}

Object Arguments(const WorkerGroup& group, const ManifestOptions& options) {
  Object arguments = Object::array({
      "--coordinator",
      CoordinatorOf(options),
      "--listen",
      absl::StrCat("0.0.0.0:", kDataPort),
      "--advertise",
      "$(POD_IP)",
      "--join-token-file",
      "/etc/deltapipe/join/join-token",
      "--ca-hash",
      "$(CA_HASH)",
      "--folder",
      "/var/lib/deltapipe",
      "--data-root",
      "/data",
  });
  if (!options.checkpoint_claim.empty()) {
    arguments.push_back("--write-root");
    arguments.push_back("/checkpoints");
  }
  const bool has_gpu = GpusOf(group, options) > 0;
  if (has_gpu || group.device == "cpu") {
    arguments.push_back("--device");
    arguments.push_back(has_gpu ? "cuda" : "cpu");
  }
  if (!group.job.empty()) {
    arguments.push_back("--job");
    arguments.push_back(group.job);
  }
  return arguments;
}

Object Environment() {
  return Object::array(
      {{{"name", "POD_IP"},
        {"valueFrom", {{"fieldRef", {{"fieldPath", "status.podIP"}}}}}},
       {{"name", "CA_HASH"},
        {"valueFrom",
         {{"secretKeyRef", {{"name", "deltapipe-join"}, {"key", "ca-hash"}}}}}},
       {{"name", "HOME"}, {"value", "/var/lib/deltapipe"}}});
}

Object Resources(const WorkerGroup& group, const ManifestOptions& options) {
  const int gpus = GpusOf(group, options);
  const std::string cpu = !options.cpu.empty() ? options.cpu
                          : gpus > 0           ? "4"
                                               : "1";
  const std::string memory = !options.memory.empty() ? options.memory
                             : gpus > 0              ? "16Gi"
                                                     : "2Gi";
  Object requests = {
      {"cpu", cpu}, {"memory", memory}, {"ephemeral-storage", "1Gi"}};
  Object limits = {{"memory", Twice(memory)},
                   {"ephemeral-storage", gpus > 0 ? "100Gi" : "20Gi"}};
  if (gpus > 0) {
    requests["nvidia.com/gpu"] = gpus;
    limits["nvidia.com/gpu"] = gpus;
  }
  return {{"requests", requests}, {"limits", limits}};
}

/// What is mounted where; `volumes` gets what that needs of the pod.
Object Mounts(const WorkerGroup& group, const ManifestOptions& options,
              Object* volumes) {
  const bool has_gpu = GpusOf(group, options) > 0;
  Object mounts = Object::array();
  const auto mount = [&](const char* name, const char* path, bool read_only,
                         const Object& source) {
    Object one = {{"name", name}, {"mountPath", path}};
    if (read_only) one["readOnly"] = true;
    mounts.push_back(one);
    Object volume = {{"name", name}};
    volume.update(source);
    volumes->push_back(volume);
  };
  mount(
      "join", "/etc/deltapipe/join", true,
      {{"secret",
        {{"secretName", "deltapipe-join"},
         {"defaultMode", 0440},
         {"items",
          Object::array({{{"key", "join-token"}, {"path", "join-token"}}})}}}});
  mount("state", "/var/lib/deltapipe", false,
        {{"emptyDir", {{"sizeLimit", has_gpu ? "80Gi" : "16Gi"}}}});
  mount("tmp", "/tmp", false, {{"emptyDir", {{"sizeLimit", "1Gi"}}}});
  mount("shm", "/dev/shm", false,
        {{"emptyDir",
          {{"medium", "Memory"}, {"sizeLimit", has_gpu ? "8Gi" : "1Gi"}}}});
  const auto claim = [](const std::string& name) -> Object {
    return {{"persistentVolumeClaim", {{"claimName", name}}}};
  };
  if (!options.data_claim.empty()) {
    mount("data", "/data", true, claim(options.data_claim));
  }
  if (!options.checkpoint_claim.empty()) {
    mount("checkpoints", "/checkpoints", false,
          claim(options.checkpoint_claim));
  }
  return mounts;
}

Object Container(const WorkerGroup& group, const ManifestOptions& options,
                 Object* volumes) {
  // Whether the worker gets on is for the coordinator to judge, by heartbeats:
  // there is no liveness probe.
  return {{"name", "worker"},
          {"image", options.image},
          {"imagePullPolicy", "IfNotPresent"},
          // The pod's state says why it ended.
          {"terminationMessagePolicy", "FallbackToLogsOnError"},
          {"args", Arguments(group, options)},
          {"env", Environment()},
          {"ports", Object::array({{{"name", "data"},
                                    {"containerPort", kDataPort},
                                    {"protocol", "TCP"}}})},
          {"startupProbe",
           {{"tcpSocket", {{"port", "data"}}},
            {"periodSeconds", 2},
            {"failureThreshold", 60}}},
          {"resources", Resources(group, options)},
          {"securityContext",
           {{"allowPrivilegeEscalation", false},
            {"readOnlyRootFilesystem", true},
            {"capabilities", {{"drop", Object::array({"ALL"})}}}}},
          {"volumeMounts", Mounts(group, options, volumes)}};
}

Object Pod(const WorkerGroup& group, const ManifestOptions& options) {
  const int64_t grace =
      std::max<int64_t>(30, 2 * options.checkpoint_time.count());
  Object volumes = Object::array();
  const Object container = Container(group, options, &volumes);
  Object spec = {{"subdomain", LabelOf(group)},
                 {"serviceAccountName", "deltapipe-worker"},
                 {"automountServiceAccountToken", false},
                 {"enableServiceLinks", false},
                 {"restartPolicy", "Never"},
                 {"terminationGracePeriodSeconds", grace},
                 {"securityContext",
                  {{"runAsNonRoot", true},
                   {"runAsUser", kUserId},
                   {"runAsGroup", kUserId},
                   {"fsGroup", kUserId},
                   {"fsGroupChangePolicy", "OnRootMismatch"},
                   {"seccompProfile", {{"type", "RuntimeDefault"}}}}}};
  if (!options.priority_class.empty()) {
    spec["priorityClassName"] = options.priority_class;
  }
  if (GpusOf(group, options) > 0) {
    spec["tolerations"] = Object::array({{{"key", "nvidia.com/gpu"},
                                          {"operator", "Exists"},
                                          {"effect", "NoSchedule"}}});
  }
  spec["containers"] = Object::array({container});
  spec["volumes"] = volumes;
  return spec;
}

/// Ends that are nobody's fault do not count, those that would only repeat
/// themselves end the Job. The first rule that matches decides.
Object FailureRules() {
  const auto on_codes = [](const char* action, const Object& codes) -> Object {
    return {
        {"action", action},
        {"onExitCodes",
         {{"containerName", "worker"}, {"operator", "In"}, {"values", codes}}}};
  };
  return Object::array(
      {{{"action", "Ignore"},
        {"onPodConditions",
         Object::array({{{"type", "DisruptionTarget"}, {"status", "True"}}})}},
       on_codes("Ignore", Object::array({8})),
       on_codes("FailJob", Object::array({2, 6}))});
}

Object Head(const char* api_version, const char* kind, const std::string& name,
            const ManifestOptions& options) {
  return {{"apiVersion", api_version},
          {"kind", kind},
          {"metadata", Metadata(name, options)}};
}

Object HeadlessService(const std::string& name,
                       const ManifestOptions& options) {
  Object service = Head("v1", "Service", name, options);
  service["spec"] = {{"clusterIP", "None"},
                     {"publishNotReadyAddresses", true},
                     {"selector", Labels(name)},
                     {"ports", Object::array({{{"name", "data"},
                                               {"port", kDataPort},
                                               {"targetPort", "data"},
                                               {"protocol", "TCP"}}})}};
  return service;
}

Object DisruptionBudget(const WorkerGroup& group,
                        const ManifestOptions& options) {
  const Object labels = Labels(LabelOf(group));
  Object budget = Head("policy/v1", "PodDisruptionBudget", group.name, options);
  budget["metadata"]["labels"] = labels;
  // A Job has no scale, so only a number may stand here: all but one.
  budget["spec"] = {{"minAvailable", group.num_workers - 1},
                    {"selector", {{"matchLabels", labels}}}};
  return budget;
}

}  // namespace

std::string WorkerGroupName(const std::string& name) {
  std::string label = "deltapipe-";
  for (const char c : name) {
    const char lower = absl::ascii_tolower(c);
    label += absl::ascii_isalnum(lower) ? lower : '-';
  }
  const bool is_faithful = absl::EndsWith(label, name) && label.back() != '-';
  if (is_faithful && label.size() <= kLongestGroupName) return label;
  const std::string ending = absl::StrCat("-", ShortHash(name));
  label = label.substr(0, kLongestGroupName - ending.size());
  while (label.back() == '-') label.pop_back();
  return absl::StrCat(label, ending);
}

absl::Status CheckManifestOptions(const ManifestOptions& options) {
  std::vector<std::string> wrong;
  const auto expect = [&wrong](bool is_right, const char* option,
                               const std::string& value, const char* expected) {
    if (is_right) return;
    wrong.push_back(
        absl::StrCat(option, ": expected ", expected, ", got '", value, "'"));
  };
  expect(IsPinned(options.image), "image", options.image,
         "a tag other than 'latest', or a digest");
  expect(IsDnsLabel(options.namespace_name), "namespace",
         options.namespace_name, "a DNS label");
  expect(IsHostPort(CoordinatorOf(options)), "coordinator", options.coordinator,
         "HOST:PORT");
  expect(options.gpus_per_worker >= -1 && options.gpus_per_worker <= 64, "gpus",
         absl::StrCat(options.gpus_per_worker), "0..64");
  expect(options.cpu.empty() || IsQuantity(options.cpu), "cpu", options.cpu,
         "a quantity such as 4 or 500m");
  expect(options.memory.empty() || IsQuantity(options.memory), "memory",
         options.memory, "a quantity such as 16Gi");
  expect(options.checkpoint_time.count() >= 0 &&
             options.checkpoint_time <= std::chrono::hours(24),
         "checkpoint time", absl::StrCat(options.checkpoint_time.count(), " s"),
         "0..24 h");
  const std::pair<const char*, const std::string*> names[] = {
      {"data claim", &options.data_claim},
      {"checkpoint claim", &options.checkpoint_claim},
      {"queue", &options.queue},
      {"priority class", &options.priority_class}};
  for (const auto& [option, name] : names) {
    expect(name->empty() || IsDnsLabel(*name), option, *name, "a DNS label");
  }
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(wrong, "\n"));
}

KubernetesObject RenderWorkerJob(const WorkerGroup& group,
                                 const ManifestOptions& options) {
  Object job = Head("batch/v1", "Job", group.name, options);
  job["metadata"]["labels"] = Labels(LabelOf(group));
  Object spec;
  if (!options.queue.empty()) {
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = options.queue;
    spec["suspend"] = true;
  }
  spec["completionMode"] = "Indexed";
  spec["completions"] = group.num_workers;
  spec["parallelism"] = group.num_workers;
  // Only ends that are a worker's own fault count.
  spec["backoffLimit"] = 4 * group.num_workers;
  spec["podReplacementPolicy"] = "Failed";
  spec["podFailurePolicy"] = {{"rules", FailureRules()}};
  spec["template"] = {{"metadata",
                       {{"labels", Labels(LabelOf(group))},
                        {"annotations",
                         {{"deltapipe.io/checkpoint-seconds",
                           absl::StrCat(options.checkpoint_time.count())}}}}},
                      {"spec", Pod(group, options)}};
  job["spec"] = spec;
  return job;
}

KubernetesObject RenderWorkerBudget(const WorkerGroup& group,
                                    const std::string& job_uid,
                                    const ManifestOptions& options) {
  Object budget = DisruptionBudget(group, options);
  budget["metadata"]["name"] =
      absl::StrCat(group.name, "-", job_uid.substr(0, kUidBeginning));
  budget["metadata"]["ownerReferences"] =
      Object::array({{{"apiVersion", "batch/v1"},
                      {"kind", "Job"},
                      {"name", group.name},
                      {"uid", job_uid}}});
  // Several Jobs may share the other labels.
  budget["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/job-name"] =
      group.name;
  return budget;
}

absl::StatusOr<std::vector<KubernetesObject>> RenderManifests(
    const v1::JobSpec& spec, const ManifestOptions& options) {
  DP_RETURN_IF_ERROR(CheckManifestOptions(options));
  WorkerGroup group;
  group.name = WorkerGroupName(spec.name().empty() ? "job" : spec.name());
  group.num_workers = spec.parallel().stages() * spec.parallel().replicas();
  group.device = spec.parallel().device();
  Object config = Head("v1", "ConfigMap", group.name, options);
  config["data"] = {{"job.yaml", JobSpecYaml(spec)}};
  std::vector<Object> manifests;
  manifests.push_back(config);
  manifests.push_back(HeadlessService(group.name, options));
  manifests.push_back(DisruptionBudget(group, options));
  manifests.push_back(RenderWorkerJob(group, options));
  return manifests;
}

}  // namespace deltapipe
