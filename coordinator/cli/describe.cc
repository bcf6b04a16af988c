// deltapipe describe JOB
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/straggler_text.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/schedule/render_plan.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

struct DescribeOptions {
  std::string coordinator;
  std::string job;
  bool json = false;
};

std::string JobFacts(const v1::Job& job) {
  Table facts({"", ""});
  facts.AddRow({"job", job.id()});
  facts.AddRow({"state", StateName(job.state())});
  if (!job.reason().empty()) facts.AddRow({"reason", job.reason()});
  const int64_t steps = std::max(job.step(), job.result().steps());
  facts.AddRow(
      {"step", absl::StrCat(steps, " of ", job.spec().train().steps())});
  facts.AddRow({"created", TimeText(job.create_time_millis())});
  facts.AddRow({"started", TimeText(job.start_time_millis())});
  facts.AddRow({"ended", TimeText(job.end_time_millis())});
  facts.AddRow({"generation", absl::StrCat(job.generation())});
  if (!ModelFolder(job).empty()) facts.AddRow({"folder", ModelFolder(job)});
  for (int rank = 0; rank < job.workers_size(); ++rank) {
    facts.AddRow({absl::StrCat("rank ", rank), job.workers(rank)});
  }
  return facts.ToString();
}

int Describe(const DescribeOptions& options) {
  JobClient client(options.coordinator);
  const auto job = client.Get(options.job);
  if (!job.ok()) return Fail(job.status());
  if (options.json) {
    PrintData(JsonLine(ToJson(*job)));
    return kExitOk;
  }
  PrintData(absl::StrCat(JobBanner(job->spec()), "\n\n", JobFacts(*job)));
  // A job that has not been planned yet has no plan to show.
  const auto plan = client.GetPlan(options.job);
  if (plan.ok()) {
    v1::JobSpec nameless = job->spec();  // the first line has the name
    nameless.clear_name();
    PrintData(absl::StrCat("\n", RenderPlan(*plan, nameless)));
  }
  // Nor has one that has not trained figures.
  const auto metrics = client.GetMetrics(options.job);
  const std::string stragglers =
      metrics.ok() ? StragglerSummary(*metrics) : std::string();
  if (!stragglers.empty()) PrintData(absl::StrCat("\n", stragglers));
  if (IsFinished(job->state()) && job->result().steps() > 0) {
    PrintData(absl::StrCat("\n", SummaryTable(*job)));
  }
  return kExitOk;
}

}  // namespace

void AddDescribeVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<DescribeOptions>();
  CLI::App* verb = app->add_subcommand(
      "describe", "Show a job: state, workers, plan and figures");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe describe text-1");
  verb->callback([=] { *chosen = [=] { return Describe(*options); }; });
}

}  // namespace deltapipe
