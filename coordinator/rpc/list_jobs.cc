#include "coordinator/rpc/list_jobs.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr int kDefaultPage = 50;
constexpr int kMaxPage = 500;
constexpr char kTokenPrefix[] = "before-";

}  // namespace

absl::StatusOr<v1::ListJobsResponse> ListJobs(
    ControlPlane* plane, const v1::ListJobsRequest& request) {
  if (request.page_size() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "page_size: expected 0 or more, got ", request.page_size()));
  }
  JobQuery query;
  query.include_finished = request.include_finished();
  if (!request.page_token().empty()) {
    absl::string_view token = request.page_token();
    if (!absl::ConsumePrefix(&token, kTokenPrefix) ||
        !absl::SimpleAtoi(token, &query.before_number) ||
        query.before_number < 1) {
      return absl::InvalidArgumentError(
          "page_token: expected the next_page_token of an earlier answer");
    }
  }
  const int page = request.page_size() == 0
                       ? kDefaultPage
                       : std::min(request.page_size(), kMaxPage);
  query.limit = page + 1;  // one more tells whether there is a next page
  DP_ASSIGN_OR_RETURN(std::vector<StoredJob> jobs,
                      plane->store()->ListJobs(query));
  v1::ListJobsResponse response;
  if (static_cast<int>(jobs.size()) > page) {
    jobs.resize(static_cast<size_t>(page));
    response.set_next_page_token(
        absl::StrCat(kTokenPrefix, jobs.back().number));
  }
  for (StoredJob& stored : jobs) {
    v1::Job* job = response.add_jobs();
    *job = std::move(stored.job);
    if (IsAtRest(job->state())) continue;
    const std::optional<int64_t> step = plane->jobs()->LiveStep(job->id());
    if (step.has_value()) job->set_step(*step);
  }
  return response;
}

}  // namespace deltapipe
