// deltapipe budget JOB BYTES/step|off
#include <memory>

#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/tuning_text.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/tuning/tuning_paths.h"

namespace deltapipe {
namespace {

struct BudgetOptions {
  std::string coordinator;
  std::string job;
  std::string budget;
  std::string etag;
  std::string reason;
  bool json = false;
};

int Budget(const BudgetOptions& options) {
  const auto bytes = ParseBudget(options.budget);
  if (!bytes.ok()) return Fail(bytes.status());
  JobClient client(options.coordinator);
  const auto before = client.GetTuning(options.job);
  if (!before.ok()) return Fail(before.status());
  v1::SetBudgetRequest request;
  request.set_job_id(options.job);
  request.set_bytes_per_step(*bytes);
  request.set_etag(options.etag);
  request.set_reason(options.reason);
  const auto after = client.SetBudget(request);
  if (!after.ok()) return Fail(after.status());
  PrintData(options.json ? JsonLine(ToJson(*after))
                         : UpdateText(*before, *after, false));
  return kExitOk;
}

}  // namespace

void AddBudgetVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<BudgetOptions>();
  CLI::App* verb = app->add_subcommand(
      "budget", "Bound the bytes that a step sends between stages");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_option("BUDGET", options->budget,
                   "Bytes per step, over all boundaries and replicas, or off")
      ->required()
      ->type_name("BYTES/step|off");
  verb->add_option("--etag", options->etag,
                   "Only if the tuning is still the one with this etag");
  verb->add_option("--reason", options->reason, "What the event log says")
      ->type_name("TEXT");
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(
      verb,
      "  deltapipe budget text-1 12MB/step\n"
      "  deltapipe budget text-1 off\n"
      "The coordinator divides it among the boundaries by the 2/3-power "
      "rule and keeps it\nwithin 3 % while the job runs.");
  verb->callback([=] { *chosen = [=] { return Budget(*options); }; });
}

}  // namespace deltapipe
