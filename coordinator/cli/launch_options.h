// --launch and what goes with it: how a coordinator gets workers for its jobs.
#ifndef DELTAPIPE_COORDINATOR_CLI_LAUNCH_OPTIONS_H_
#define DELTAPIPE_COORDINATOR_CLI_LAUNCH_OPTIONS_H_

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "coordinator/cli/manifest_options.h"
#include "coordinator/launch/worker_supply.h"

namespace deltapipe {

struct LaunchFlags {
  std::string kind = "none";
  ManifestFlags manifests;
  /// Empty: as Kubernetes tells a pod.
  std::string kube_server;
  std::string kube_token_file;
  std::string kube_ca_file;
  std::string kube_namespace = "deltapipe";
};

void AddLaunchOptions(CLI::App* verb, LaunchFlags* flags);

/// Null for "none". FAILED_PRECONDITION: this process runs in no pod with a
/// service account, and no API server was named. INVALID_ARGUMENT: options that
/// Kubernetes would refuse. The errors of reading the token.
absl::StatusOr<std::unique_ptr<WorkerSupply>> MakeSupply(
    const LaunchFlags& flags);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_LAUNCH_OPTIONS_H_
