// deltapipe render SPEC
#include <algorithm>
#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/units.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/launch/kubernetes/render_manifests.h"

namespace deltapipe {
namespace {

struct RenderOptions {
  SpecOptions spec;
  ManifestOptions manifests;
  std::string checkpoint_time = "60s";
  bool json = false;
};

/// What is likely to surprise in a pod.
void PrintDoubts(const v1::JobSpec& spec, const ManifestOptions& options) {
  const std::string& path = spec.data().path();
  if (!path.empty() && path[0] != '/') {
    PrintNote(absl::StrCat("data.path '", path,
                           "' is relative: a worker in a pod looks for it from "
                           "/; say --set data.path=/data/... and --data-claim "
                           "CLAIM"));
  } else if (!path.empty() && options.data_claim.empty()) {
    PrintNote(absl::StrCat("data.path '", path,
                           "' must be in the image: --data-claim CLAIM mounts "
                           "a claim at /data"));
  }
  if (spec.parallel().threads() == 0 && spec.parallel().device() != "cuda") {
    PrintNote(
        "parallel.threads is 0: each worker takes all cores of its node, "
        "whatever its share of them is");
  }
}

int Render(const RenderOptions& options) {
  SpecReading reading;
  if (!ReadSpecOrExplain(options.spec, CorpusCheck::kNever, &reading)) {
    return kExitUsage;
  }
  ManifestOptions settings = options.manifests;
  const auto time = ParseDuration(options.checkpoint_time);
  if (!time.ok()) {
    PrintError(absl::StrCat("--checkpoint-time: ", time.status().message()));
    return kExitUsage;
  }
  // Up to a whole second, so that the grace is never too short.
  settings.checkpoint_time = std::chrono::ceil<std::chrono::seconds>(*time);
  const auto manifests = RenderManifests(reading.spec, settings);
  if (!manifests.ok()) return Fail(manifests.status());
  PrintDoubts(reading.spec, settings);
  if (!options.json) {
    PrintData(ManifestsYaml(*manifests));
    return kExitOk;
  }
  Json list;
  list["schema"] = "deltapipe.cli.Manifests";
  list["apiVersion"] = "v1";
  list["kind"] = "List";
  list["items"] = *manifests;
  PrintData(JsonLine(list));
  return kExitOk;
}

}  // namespace

void AddRenderVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<RenderOptions>();
  ManifestOptions* const manifests = &options->manifests;
  CLI::App* verb = app->add_subcommand(
      "render", "Print the Kubernetes manifests of a job's workers");
  AddSpecOptions(verb, &options->spec);
  verb->add_option("--image", manifests->image, "The workers' image")
      ->capture_default_str();
  verb->add_option("--namespace", manifests->namespace_name,
                   "Where the coordinator runs")
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--coordinator", manifests->coordinator,
                   "Where the workers find the coordinator; default: the "
                   "Service 'deltapipe' of the namespace")
      ->check(HostPort(1))
      ->type_name("HOST:PORT");
  verb->add_option("--gpus", manifests->gpus_per_worker,
                   "GPUs per worker; default: 1 if parallel.device is cuda")
      ->check(NotNegative())
      ->type_name("N");
  verb->add_option("--cpu", manifests->cpu,
                   "What a worker asks for, such as 4 or 500m")
      ->type_name("QUANTITY");
  verb->add_option("--memory", manifests->memory,
                   "What a worker asks for, such as 16Gi; twice that is its "
                   "limit")
      ->type_name("QUANTITY");
  verb->add_option("--checkpoint-time", options->checkpoint_time,
                   "How long the longest checkpoint takes; a pod that is to "
                   "end gets twice that")
      ->type_name("DURATION")
      ->capture_default_str();
  verb->add_option("--data-claim", manifests->data_claim,
                   "The volume claim to mount at /data, read-only")
      ->type_name("NAME");
  verb->add_option("--checkpoint-claim", manifests->checkpoint_claim,
                   "The volume claim to mount at /checkpoints")
      ->type_name("NAME");
  verb->add_option("--queue", manifests->queue,
                   "The LocalQueue of Kueue that admits the workers")
      ->type_name("NAME");
  verb->add_option("--priority-class", manifests->priority_class,
                   "The workers' PriorityClass")
      ->type_name("NAME");
  AddJsonFlag(verb, &options->json);
  SetExamples(
      verb,
      "  deltapipe render examples/text.yaml --data-claim corpus "
      "--set data.path=/data/austen.txt | kubectl apply -f -\n"
      "The cluster must have deploy/kubernetes/base: see "
      "docs/kubernetes.md. The workers join its coordinator; 'deltapipe "
      "submit' gives it the job.");
  verb->callback([=] { *chosen = [=] { return Render(*options); }; });
}

}  // namespace deltapipe
