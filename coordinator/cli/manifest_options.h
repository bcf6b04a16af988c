// Options for the pods of workers, which `render` and `coordinator --launch
// kubernetes` share.
#ifndef DELTAPIPE_COORDINATOR_CLI_MANIFEST_OPTIONS_H_
#define DELTAPIPE_COORDINATOR_CLI_MANIFEST_OPTIONS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "coordinator/launch/kubernetes/render_manifests.h"

namespace deltapipe {

struct ManifestFlags {
  ManifestOptions manifests;
  std::string checkpoint_time = "60s";
};

/// --image, --cpu and so on, each with `prefix` before its name: "", "worker-".
/// Those with a prefix stand together in the help and need the option `needed`,
/// which may be null.
void AddManifestOptions(CLI::App* verb, const std::string& prefix,
                        CLI::Option* needed, ManifestFlags* flags);

/// INVALID_ARGUMENT: the checkpoint time is none. Kubernetes' own rules are
/// checked by whoever renders.
absl::StatusOr<ManifestOptions> ReadManifestFlags(const std::string& prefix,
                                                  const ManifestFlags& flags);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_MANIFEST_OPTIONS_H_
