// deltapipe pause JOB
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

struct PauseOptions {
  std::string coordinator;
  std::string job;
  std::string reason = "asked for by deltapipe pause";
  bool json = false;
};

int Pause(const PauseOptions& options) {
  JobClient client(options.coordinator);
  const auto job = client.Pause(options.job, options.reason);
  if (!job.ok()) return Fail(job.status());
  PrintData(options.json
                ? JsonLine(ToJson(*job))
                : absl::StrCat(job->id(),
                               " pauses: its workers finish their step, write "
                               "a checkpoint and become free; 'deltapipe "
                               "resume ",
                               job->id(), "' goes on\n"));
  return kExitOk;
}

}  // namespace

void AddPauseVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<PauseOptions>();
  CLI::App* verb = app->add_subcommand(
      "pause", "Write a checkpoint and set a job's workers free");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_option("--reason", options->reason, "What the job's record says")
      ->type_name("TEXT")
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe pause text-1 --reason \"urgent job\"");
  verb->callback([=] { *chosen = [=] { return Pause(*options); }; });
}

}  // namespace deltapipe
