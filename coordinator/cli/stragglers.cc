// deltapipe stragglers JOB
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/straggler_text.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct StragglersOptions {
  std::string coordinator;
  std::string job;
  bool json = false;
};

int Stragglers(const StragglersOptions& options) {
  JobClient client(options.coordinator);
  const auto metrics = client.GetMetrics(options.job);
  if (!metrics.ok()) return Fail(metrics.status());
  if (!metrics->has_stragglers()) {
    return Fail(absl::FailedPreconditionError(absl::StrCat(
        "no step of job '", options.job,
        "' has been sampled: one in ten is unless straggler_policy is none "
        "('deltapipe set ",
        options.job, " straggler_policy=detect')")));
  }
  PrintData(options.json ? JsonLine(ToJson(metrics->stragglers()))
                         : StragglerReport(*metrics));
  return kExitOk;
}

}  // namespace

void AddStragglersVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<StragglersOptions>();
  CLI::App* verb = app->add_subcommand(
      "stragglers",
      "Show who slows a job down, why, and what a fix would save");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe stragglers text-1\n"
              "  deltapipe stragglers text-1 --json | jq .stragglers");
  verb->callback([=] { *chosen = [=] { return Stragglers(*options); }; });
}

}  // namespace deltapipe
