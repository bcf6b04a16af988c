#include "coordinator/rpc/find_job.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/errors/error_details.h"

namespace deltapipe {
namespace {

/// Jobs that the search for a near id looks at, newest first.
constexpr int kMaxCandidates = 1000;
/// Ids are not repeated at greater length in errors.
constexpr size_t kMaxShownId = 80;

/// Levenshtein's distance.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string NearestId(const std::string& id,
                      const std::vector<std::string>& ids) {
  std::string nearest;
  size_t least = SIZE_MAX;
  for (const std::string& candidate : ids) {
    const size_t distance = EditDistance(id, candidate);
    const bool is_similar = 3 * distance <= id.size() + 2 ||
                            (!id.empty() && absl::StartsWith(candidate, id));
    if (is_similar && distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

absl::StatusOr<StoredJob> FindJob(ControlPlane* plane, const std::string& id) {
  absl::StatusOr<StoredJob> stored = plane->store()->GetJob(id);
  if (!absl::IsNotFound(stored.status())) return stored;
  JobQuery query;
  query.limit = kMaxCandidates;
  DP_ASSIGN_OR_RETURN(const std::vector<StoredJob> jobs,
                      plane->store()->ListJobs(query));
  std::vector<std::string> ids;
  for (const StoredJob& job : jobs) ids.push_back(job.job.id());
  const std::string shown = id.substr(0, kMaxShownId);
  const std::string nearest = NearestId(shown, ids);
  std::string hint = ": 'deltapipe ls' lists those that there are";
  if (ids.empty()) hint = ": this coordinator has no jobs yet";
  if (!nearest.empty()) hint = absl::StrCat(" (did you mean '", nearest, "'?)");
  return WithResource(WithReason(absl::NotFoundError(absl::StrCat(
                                     "no job '", shown, "'", hint)),
                                 {"NO_SUCH_JOB", {{"job", shown}}}),
                      "job", shown);
}

}  // namespace deltapipe
