// deltapipe checkpoint create JOB: one at the next step of a running job.
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

struct CreateOptions {
  std::string coordinator;
  std::string job;
  bool json = false;
};

int Create(const CreateOptions& options) {
  const auto job =
      JobClient(options.coordinator).RequestCheckpoint(options.job);
  if (!job.ok()) return Fail(job.status());
  PrintData(options.json
                ? JsonLine(ToJson(*job))
                : absl::StrCat(job->id(),
                               " writes a checkpoint after its next step; "
                               "'deltapipe events ",
                               job->id(), "' tells when it is complete\n"));
  return kExitOk;
}

}  // namespace

void AddCheckpointCreateVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<CreateOptions>();
  CLI::App* verb = group->add_subcommand(
      "create", "Ask a running job for a checkpoint after its next step");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe checkpoint create text-1");
  verb->callback([=] { *chosen = [=] { return Create(*options); }; });
}

}  // namespace deltapipe
