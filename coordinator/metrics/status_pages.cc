#include "coordinator/metrics/status_pages.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/metrics/page_files.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxId = 128;

HttpAnswer NotThere(const std::string& what) {
  return {404, "text/plain; charset=utf-8",
          absl::StrCat(what,
                       ": there are /, /api/jobs, /api/jobs/ID, "
                       "/metrics and /healthz\n")};
}

HttpAnswer Error(const absl::Status& status) {
  int code = 500;
  if (absl::IsNotFound(status)) code = 404;
  if (absl::IsFailedPrecondition(status)) code = 404;
  return {code, "text/plain; charset=utf-8",
          absl::StrCat(std::string(status.message()), "\n")};
}

HttpAnswer JsonAnswer(const Json& object) {
  return {200, "application/json", JsonLine(object)};
}

HttpAnswer Jobs(const StatusSource& source) {
  const auto listed = source.list_jobs();
  if (!listed.ok()) return Error(listed.status());
  Json jobs = Json::array();
  for (const v1::Job& job : listed->jobs()) {
    Json object;
    object["id"] = job.id();
    object["name"] = job.spec().name();
    object["state"] = StateName(job.state());
    object["reason"] = job.reason();
    object["step"] = job.step();
    object["total_steps"] = job.spec().train().steps();
    object["create_time_millis"] = job.create_time_millis();
    jobs.push_back(std::move(object));
  }
  Json answer;
  answer["schema"] = "deltapipe.web.Jobs";
  answer["jobs"] = std::move(jobs);
  return JsonAnswer(answer);
}

HttpAnswer Job(const StatusSource& source, absl::string_view id) {
  if (id.empty() || id.size() > kMaxId) return NotThere("no such job");
  const auto metrics = source.get_metrics(std::string(id));
  if (!metrics.ok()) return Error(metrics.status());
  Json object = ToJson(*metrics);
  object["now_millis"] = source.clock->WallMillis();
  return JsonAnswer(object);
}

}  // namespace

HttpAnswer AnswerStatusPath(const StatusSource& source,
                            const std::string& path) {
  if (path == "/") return {200, "text/html; charset=utf-8", kIndexHtml};
  if (path == "/page.css") return {200, "text/css; charset=utf-8", kPageCss};
  if (path == "/page.js") {
    return {200, "text/javascript; charset=utf-8", kPageJs};
  }
  if (path == "/healthz") return {200, "text/plain", "ok\n"};
  if (path == "/metrics") {
    return {200, "text/plain; version=0.0.4; charset=utf-8",
            source.prometheus_text()};
  }
  if (path == "/api/jobs") return Jobs(source);
  absl::string_view id = path;
  if (absl::ConsumePrefix(&id, "/api/jobs/")) return Job(source, id);
  return NotThere("nothing is here");
}

}  // namespace deltapipe
