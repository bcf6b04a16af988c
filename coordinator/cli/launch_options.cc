#include "coordinator/cli/launch_options.h"

#include <utility>

#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/launch/kubernetes/kubernetes_supply.h"

namespace deltapipe {
namespace {

constexpr char kKubernetes[] = "kubernetes";
constexpr char kWorkerPrefix[] = "worker-";

absl::StatusOr<KubeClientOptions> KubeOptions(const LaunchFlags& flags) {
  if (flags.kube_server.empty()) {
    auto options = InClusterKubeOptions();
    return options.ok() ? std::move(options)
                        : Annotate(options.status(),
                                   "--launch kubernetes without --kube-server");
  }
  KubeClientOptions options;
  options.server = flags.kube_server;
  options.token_path = flags.kube_token_file;
  options.ca_path = flags.kube_ca_file;
  options.namespace_name = flags.kube_namespace;
  for (const std::string& path : {options.token_path, options.ca_path}) {
    if (path.empty()) continue;
    DP_RETURN_IF_ERROR(ReadFile(path, 1 << 20).status());
  }
  return options;
}

}  // namespace

void AddLaunchOptions(CLI::App* verb, LaunchFlags* flags) {
  CLI::Option* const launch =
      verb->add_option("--launch", flags->kind,
                       "Where to launch workers for each job: none takes those "
                       "that join, kubernetes makes a Job of pods for each, in "
                       "the cluster that this coordinator runs in")
          ->check(CLI::IsMember({"none", kKubernetes}))
          ->capture_default_str();
  AddManifestOptions(verb, kWorkerPrefix, launch, &flags->manifests);
  const auto add = [&](const char* name, std::string* value, const char* help) {
    return verb->add_option(name, *value, help)
        ->group("Launching from outside the cluster")
        ->needs(launch);
  };
  CLI::Option* const server =
      add("--kube-server", &flags->kube_server,
          "The Kubernetes API server; default: as a pod's service account "
          "says")
          ->type_name("URL");
  add("--kube-token-file", &flags->kube_token_file,
      "The token for it; read for every request")
      ->needs(server)
      ->type_name("FILE");
  add("--kube-ca-file", &flags->kube_ca_file,
      "The certificate that its own leads to")
      ->needs(server)
      ->type_name("FILE");
  add("--kube-namespace", &flags->kube_namespace, "Where Jobs are made")
      ->needs(server)
      ->type_name("NAME")
      ->capture_default_str();
}

absl::StatusOr<std::unique_ptr<WorkerSupply>> MakeSupply(
    const LaunchFlags& flags) {
  if (flags.kind != kKubernetes) return nullptr;
  JobKeeperOptions options;
  DP_ASSIGN_OR_RETURN(options.manifests,
                      ReadManifestFlags(kWorkerPrefix, flags.manifests));
  DP_ASSIGN_OR_RETURN(options.kube, KubeOptions(flags));
  auto supply = KubernetesSupply::Create(std::move(options));
  if (!supply.ok()) {
    return Annotate(supply.status(), "--launch kubernetes");
  }
  return *std::move(supply);
}

}  // namespace deltapipe
