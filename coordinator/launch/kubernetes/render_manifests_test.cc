// Names, numbers and texts; what Kubernetes makes of the objects is checked by
// deploy/kubernetes:render_test.
#include "coordinator/launch/kubernetes/render_manifests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/spec/job_spec.h"
#include "yaml-cpp/yaml.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

v1::JobSpec Spec(const std::vector<std::string>& overrides = {}) {
  const auto spec = ParseJobSpec(
      "name: text\ndata: {path: /data/a.txt}\n"
      "parallel: {stages: 2, replicas: 2}\n",
      "test", overrides);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}

std::vector<KubernetesObject> Render(const v1::JobSpec& spec,
                                     const ManifestOptions& options = {}) {
  auto manifests = RenderManifests(spec, options);
  EXPECT_TRUE(manifests.ok()) << manifests.status();
  return *std::move(manifests);
}

KubernetesObject JobOf(const std::vector<KubernetesObject>& manifests) {
  return manifests.back();
}

KubernetesObject ContainerOf(const KubernetesObject& job) {
  return job["spec"]["template"]["spec"]["containers"][0];
}

std::string MessageOf(const ManifestOptions& options) {
  const absl::Status status = CheckManifestOptions(options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(RenderManifestsTest, AWorkerForEachStageOfEachReplica) {
  const KubernetesObject job = JobOf(Render(Spec()));

  EXPECT_EQ(job["kind"], "Job");
  EXPECT_EQ(job["metadata"]["name"], "deltapipe-text");
  EXPECT_EQ(job["spec"]["completionMode"], "Indexed");
  EXPECT_EQ(job["spec"]["completions"], 4);
  EXPECT_EQ(job["spec"]["parallelism"], 4);
}

TEST(RenderManifestsTest, EveryKindOnceAndTheJobLast) {
  std::vector<std::string> kinds;
  for (const auto& manifest : Render(Spec())) kinds.push_back(manifest["kind"]);

  EXPECT_THAT(
      kinds, ElementsAre("ConfigMap", "Service", "PodDisruptionBudget", "Job"));
}

TEST(RenderManifestsTest, ConfigMapHoldsTheSpecAsItCanBeSubmitted) {
  const v1::JobSpec spec = Spec();

  const std::string text = Render(spec)[0]["data"]["job.yaml"];

  const auto read = ParseJobSpec(text, "config map", {});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->SerializeAsString(), spec.SerializeAsString());
}

TEST(RenderManifestsTest, GraceIsTwiceACheckpointAndHalfAMinuteAtLeast) {
  ManifestOptions options;
  options.checkpoint_time = std::chrono::minutes(5);
  ManifestOptions quick;
  quick.checkpoint_time = std::chrono::seconds(1);

  const KubernetesObject job = JobOf(Render(Spec(), options));
  const KubernetesObject quick_job = JobOf(Render(Spec(), quick));

  const auto& pod = job["spec"]["template"];
  EXPECT_EQ(pod["spec"]["terminationGracePeriodSeconds"], 600);
  EXPECT_EQ(pod["metadata"]["annotations"]["deltapipe.io/checkpoint-seconds"],
            "300");
  EXPECT_EQ(
      quick_job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
      30);
}

TEST(RenderManifestsTest, WorkersOnCudaGetAGpuEach) {
  const KubernetesObject job = JobOf(Render(Spec({"parallel.device=cuda"})));

  const KubernetesObject container = ContainerOf(job);
  EXPECT_EQ(container["resources"]["requests"]["nvidia.com/gpu"], 1);
  EXPECT_EQ(container["resources"]["limits"]["nvidia.com/gpu"], 1);
  EXPECT_EQ(container["resources"]["limits"]["memory"], "32Gi");
  EXPECT_THAT(container["args"], AllOf(Contains("--device"), Contains("cuda")));
}

TEST(RenderManifestsTest, WorkersOnAnythingElseGetNone) {
  const KubernetesObject container = ContainerOf(JobOf(Render(Spec())));

  EXPECT_FALSE(container["resources"]["limits"].contains("nvidia.com/gpu"));
  EXPECT_THAT(container["args"], Not(Contains("--device")));
}

TEST(RenderManifestsTest, ClaimsAreMountedWhereTheDocsSay) {
  ManifestOptions options;
  options.data_claim = "corpus";
  options.checkpoint_claim = "saved";

  const KubernetesObject job = JobOf(Render(Spec(), options));

  EXPECT_THAT(
      ContainerOf(job)["volumeMounts"],
      AllOf(Contains(KubernetesObject{
                {"name", "data"}, {"mountPath", "/data"}, {"readOnly", true}}),
            Contains(KubernetesObject{{"name", "checkpoints"},
                                      {"mountPath", "/checkpoints"}})));
}

TEST(RenderManifestsTest, JobsMayNameWhatIsMountedForThem) {
  ManifestOptions options;
  options.checkpoint_claim = "saved";

  const auto words = ContainerOf(JobOf(Render(Spec(), options)))["args"]
                         .get<std::vector<std::string>>();
  const auto fewer = ContainerOf(JobOf(Render(Spec())))["args"]
                         .get<std::vector<std::string>>();

  EXPECT_THAT(absl::StrJoin(words, " "),
              HasSubstr("--folder /var/lib/deltapipe --data-root /data "
                        "--write-root /checkpoints"));
  EXPECT_THAT(fewer,
              AllOf(Contains("--data-root"), Not(Contains("--write-root"))));
}

TEST(RenderManifestsTest, QueuedJobWaitsForKueue) {
  ManifestOptions options;
  options.queue = "research";

  const KubernetesObject job = JobOf(Render(Spec(), options));

  EXPECT_EQ(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "research");
  EXPECT_EQ(job["spec"]["suspend"], true);
}

TEST(RenderManifestsTest, CoordinatorIsTheServiceOfTheNamespace) {
  ManifestOptions options;
  options.namespace_name = "team-a";

  const KubernetesObject job = JobOf(Render(Spec(), options));

  EXPECT_EQ(ContainerOf(job)["args"][1], "deltapipe.team-a.svc:7707");
}

TEST(RenderManifestsTest, EveryRefusedOptionIsNamedAtOnce) {
  ManifestOptions options;
  options.image = "registry:5000/worker";
  options.namespace_name = "Team_A";
  options.coordinator = "nowhere";
  options.gpus_per_worker = 65;
  options.cpu = "-1";
  options.memory = "much";
  options.checkpoint_time = std::chrono::hours(25);
  options.data_claim = "-";

  EXPECT_EQ(MessageOf(options),
            "image: expected a tag other than 'latest', or a digest, got "
            "'registry:5000/worker'\n"
            "namespace: expected a DNS label, got 'Team_A'\n"
            "coordinator: expected HOST:PORT, got 'nowhere'\n"
            "gpus: expected 0..64, got '65'\n"
            "cpu: expected a quantity such as 4 or 500m, got '-1'\n"
            "memory: expected a quantity such as 16Gi, got 'much'\n"
            "checkpoint time: expected 0..24 h, got '90000 s'\n"
            "data claim: expected a DNS label, got '-'");
}

TEST(RenderManifestsTest, ImageMayBePinnedByTagOrDigest) {
  ManifestOptions options;
  for (const std::string image :
       {"worker:1", "registry:5000/a/worker:1.2", "worker@sha256:00"}) {
    options.image = image;
    EXPECT_TRUE(CheckManifestOptions(options).ok()) << image;
  }
  options.image = "worker:latest";
  EXPECT_THAT(MessageOf(options), StartsWith("image: "));
}

TEST(WorkerGroupNameTest, LongNamesAreCutAndStayApart) {
  const std::string a(63, 'a');
  const std::string b = a.substr(1) + "b";

  EXPECT_EQ(WorkerGroupName(a).size(), 52u);
  EXPECT_NE(WorkerGroupName(a), WorkerGroupName(b));
  EXPECT_EQ(WorkerGroupName(a), WorkerGroupName(a));
}

TEST(WorkerGroupNameTest, NamesThatALabelCannotHoldStayApart) {
  EXPECT_EQ(WorkerGroupName("text"), "deltapipe-text");
  EXPECT_THAT(WorkerGroupName("text-"), StartsWith("deltapipe-text-"));
  EXPECT_NE(WorkerGroupName("a_b"), WorkerGroupName("a-b"));
  EXPECT_NE(WorkerGroupName("A"), WorkerGroupName("a"));
}

TEST(ManifestsYamlTest, EveryStringStaysAString) {
  KubernetesObject object;
  for (const std::string text :
       {"true",      "No",           "8",           "1e3",
        "0x1f",      "null",         "~",           "",
        " a",        "a: b",         "#",           "- a",
        "$(POD_IP)", "0.0.0.0:7707", "12:30:45",    "2026-01-02",
        "\"q\"",     "plain",        "/path/of-it", "two\nlines\n",
        "*a",        "&a",           "y",           "="}) {
    object[absl::StrCat("k", object.size())] = text;
  }

  const YAML::Node read = YAML::Load(ManifestsYaml({object}));

  for (const auto& [key, value] : object.items()) {
    EXPECT_EQ(read[key].as<std::string>(), value.get<std::string>()) << key;
    // "!" is the tag of what was quoted; plain text has "?".
    const bool is_word = value == "plain" || value == "/path/of-it";
    EXPECT_EQ(read[key].Tag(), is_word ? "?" : "!") << value;
  }
}

TEST(ManifestsYamlTest, NumbersAndTruthsStayBare) {
  const KubernetesObject object = {{"a", 3},
                                   {"b", true},
                                   {"c", KubernetesObject::array({1, 2})},
                                   {"d", KubernetesObject::object()},
                                   {"e", 1.5}};

  EXPECT_EQ(ManifestsYaml({object, object}),
            "a: 3\nb: true\nc:\n  - 1\n  - 2\nd: {}\ne: 1.5\n---\n"
            "a: 3\nb: true\nc:\n  - 1\n  - 2\nd: {}\ne: 1.5\n");
}

TEST(ManifestsYamlTest, SameSpecGivesTheSameBytes) {
  EXPECT_EQ(ManifestsYaml(Render(Spec())), ManifestsYaml(Render(Spec())));
}

}  // namespace
}  // namespace deltapipe
