// deltapipe render SPEC
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/manifest_options.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/launch/kubernetes/render_manifests.h"

namespace deltapipe {
namespace {

struct RenderOptions {
  SpecOptions spec;
  ManifestFlags manifests;
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
  const auto settings = ReadManifestFlags("", options.manifests);
  if (!settings.ok()) return Fail(settings.status());
  const auto manifests = RenderManifests(reading.spec, *settings);
  if (!manifests.ok()) return Fail(manifests.status());
  PrintDoubts(reading.spec, *settings);
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
  CLI::App* verb = app->add_subcommand(
      "render", "Print the Kubernetes manifests of a job's workers");
  AddSpecOptions(verb, &options->spec);
  AddManifestOptions(verb, "", nullptr, &options->manifests);
  verb->add_option("--namespace", options->manifests.manifests.namespace_name,
                   "Where the coordinator runs")
      ->type_name("NAME")
      ->capture_default_str();
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
