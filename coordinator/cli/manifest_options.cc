#include "coordinator/cli/manifest_options.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/cli/verb_options.h"

namespace deltapipe {

void AddManifestOptions(CLI::App* verb, const std::string& prefix,
                        CLI::Option* needed, ManifestFlags* flags) {
  ManifestOptions* const manifests = &flags->manifests;
  const auto add = [&](const char* name, auto* value, const char* help) {
    CLI::Option* const option =
        verb->add_option(absl::StrCat("--", prefix, name), *value, help);
    if (!prefix.empty()) option->group("Workers that are launched");
    if (needed != nullptr) option->needs(needed);
    return option;
  };
  add("image", &manifests->image, "The workers' image")->capture_default_str();
  add("coordinator", &manifests->coordinator,
      "Where the workers find the coordinator; default: the Service "
      "'deltapipe' of the namespace")
      ->check(HostPort(1))
      ->type_name("HOST:PORT");
  add("gpus", &manifests->gpus_per_worker,
      "GPUs per worker; default: 1 if parallel.device is cuda")
      ->check(NotNegative())
      ->type_name("N");
  add("cpu", &manifests->cpu, "What a worker asks for, such as 4 or 500m")
      ->type_name("QUANTITY");
  add("memory", &manifests->memory,
      "What a worker asks for, such as 16Gi; twice that is its limit")
      ->type_name("QUANTITY");
  add("checkpoint-time", &flags->checkpoint_time,
      "How long the longest checkpoint takes; a pod that is to end gets twice "
      "that")
      ->type_name("DURATION")
      ->capture_default_str();
  add("data-claim", &manifests->data_claim,
      "The volume claim to mount at /data, read-only")
      ->type_name("NAME");
  add("checkpoint-claim", &manifests->checkpoint_claim,
      "The volume claim to mount at /checkpoints")
      ->type_name("NAME");
  add("queue", &manifests->queue,
      "The LocalQueue of Kueue that admits the workers")
      ->type_name("NAME");
  add("priority-class", &manifests->priority_class,
      "The workers' PriorityClass")
      ->type_name("NAME");
}

absl::StatusOr<ManifestOptions> ReadManifestFlags(const std::string& prefix,
                                                  const ManifestFlags& flags) {
  const auto time = ParseDuration(flags.checkpoint_time);
  if (!time.ok()) {
    return Annotate(time.status(),
                    absl::StrCat("--", prefix, "checkpoint-time"));
  }
  ManifestOptions options = flags.manifests;
  // Up to a whole second, so that the grace is never too short.
  options.checkpoint_time = std::chrono::ceil<std::chrono::seconds>(*time);
  return options;
}

}  // namespace deltapipe
