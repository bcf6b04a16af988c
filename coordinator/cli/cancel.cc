// deltapipe cancel JOB
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

struct CancelOptions {
  std::string coordinator;
  std::string job;
  std::string reason = "asked for by deltapipe cancel";
  bool json = false;
};

/// What the job was doing when it heard of it.
std::string WhatBecomesOf(const v1::Job& job) {
  if (!IsAtRest(job.state())) {
    return " is ending: its workers finish their step and write the model";
  }
  if (job.members_size() == 0) {
    return " is cancelled: it was still waiting for workers";
  }
  if (job.start_time_millis() == 0) {
    return " is cancelled before its first step: there is no model";
  }
  return absl::StrCat(" is ", StateName(job.state()));
}

int Cancel(const CancelOptions& options) {
  JobClient client(options.coordinator);
  const auto job = client.Cancel(options.job, options.reason);
  if (!job.ok()) return Fail(job.status());
  if (options.json) {
    PrintData(JsonLine(ToJson(*job)));
  } else {
    PrintData(absl::StrCat(job->id(), WhatBecomesOf(*job), "\n"));
  }
  return kExitOk;
}

}  // namespace

void AddCancelVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<CancelOptions>();
  CLI::App* verb = app->add_subcommand(
      "cancel", "End a job at its next step; its model is written");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_option("--reason", options->reason, "What the job's record says")
      ->type_name("TEXT")
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe cancel text-1 --reason \"wrong corpus\"");
  verb->callback([=] { *chosen = [=] { return Cancel(*options); }; });
}

}  // namespace deltapipe
