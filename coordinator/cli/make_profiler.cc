#include "coordinator/cli/make_profiler.h"

#include <cstdlib>
#include <string>

#include "base/status_macros.h"
#include "coordinator/launch/find_worker_binary.h"

namespace deltapipe {
namespace {

std::string CacheFolder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') {
    return std::string(cache) + "/deltapipe/profiles";
  }
  const char* home = std::getenv("HOME");
  if (home != nullptr && home[0] == '/') {
    return std::string(home) + "/.cache/deltapipe/profiles";
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProfiler>> MakeProfiler() {
  WorkerProfilerOptions options;
  DP_ASSIGN_OR_RETURN(options.worker_binary, FindWorkerBinary());
  options.cache_folder = CacheFolder();
  return WorkerProfiler::Create(std::move(options));
}

}  // namespace deltapipe
