// deltapipe resume JOB
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct ResumeOptions {
  std::string coordinator;
  std::string job;
  bool json = false;
};

int Resume(const ResumeOptions& options) {
  JobClient client(options.coordinator);
  const auto job = client.Resume(options.job);
  if (!job.ok()) return Fail(job.status());
  if (options.json) {
    PrintData(JsonLine(ToJson(*job)));
    return kExitOk;
  }
  const std::string where =
      job->checkpoint_step() > 0
          ? absl::StrCat("goes on after step ", job->checkpoint_step())
          : std::string("begins again: it has no checkpoint");
  PrintData(absl::StrCat(job->id(), " waits for workers and ", where, "\n"));
  return kExitOk;
}

}  // namespace

void AddResumeVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<ResumeOptions>();
  CLI::App* verb = app->add_subcommand(
      "resume", "Go on with a job from its last checkpoint");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe resume text-1");
  verb->callback([=] { *chosen = [=] { return Resume(*options); }; });
}

}  // namespace deltapipe
