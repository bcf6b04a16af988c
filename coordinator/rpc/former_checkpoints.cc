#include "coordinator/rpc/former_checkpoints.h"

#include <algorithm>
#include <climits>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/layer_partition.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

constexpr char kCheckpoints[] = "checkpoints";

/// Without "." and "..", doubled slashes, and those at the end.
fs::path Normal(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

/// Empty: below a folder that the worker chooses.
fs::path PlaceOf(const v1::JobSpec& spec, const std::string& run_folder) {
  const std::string& given = spec.checkpoint().folder();
  if (!given.empty()) return Normal(given);
  return run_folder.empty() ? fs::path() : Normal(run_folder) / kCheckpoints;
}

bool WritesTo(const v1::Job& job, const fs::path& place) {
  const fs::path own = PlaceOf(job.spec(), job.run_folder());
  if (!own.empty()) return own == place;
  return place.filename() == kCheckpoints &&
         place.parent_path().filename() == job.id();
}

}  // namespace

absl::StatusOr<std::vector<FormerCheckpoint>> FormerCheckpoints(
    JobStore* store, const v1::JobSpec& spec, const std::string& run_folder) {
  const fs::path place = PlaceOf(spec, run_folder);
  JobQuery query;
  query.limit = INT_MAX;
  DP_ASSIGN_OR_RETURN(std::vector<StoredJob> jobs, store->ListJobs(query));
  jobs.erase(std::remove_if(jobs.begin(), jobs.end(),
                            [&](const StoredJob& stored) {
                              return stored.job.checkpoint_step() == 0 ||
                                     !WritesTo(stored.job, place);
                            }),
             jobs.end());
  // Of one step the newest job's.
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const StoredJob& a, const StoredJob& b) {
                     return a.job.checkpoint_step() > b.job.checkpoint_step();
                   });
  std::vector<FormerCheckpoint> checkpoints;
  for (const StoredJob& listed : jobs) {
    DP_ASSIGN_OR_RETURN(StoredJob stored, store->GetJob(listed.job.id()));
    v1::JobSpec& former = *stored.job.mutable_spec();
    // The stages of a synthetic model have no layers to cut.
    if (stored.plan.has_value() && former.model().kind() != "synthetic") {
      former.mutable_parallel()->set_partition(
          LayersOfStages(stored.plan->stages()));
    }
    checkpoints.push_back(
        {absl::StrCat(stored.job.checkpoint_step(), " of ", stored.job.id()),
         std::move(former)});
  }
  return checkpoints;
}

}  // namespace deltapipe
