// deltapipe worker ls|drain
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct WorkerListOptions {
  std::string coordinator;
  bool json = false;
};

int ListWorkers(const WorkerListOptions& options) {
  JobClient client(options.coordinator);
  const auto answer = client.ListWorkers();
  if (!answer.ok()) return Fail(answer.status());
  Table table(
      {"WORKER", "HOST", "ADDRESS", "DEVICE", "CORES", "STATE", "JOB", "STAGE",
       "REPLICA"},
      {Align::kLeft, Align::kLeft, Align::kLeft, Align::kLeft, Align::kRight,
       Align::kLeft, Align::kLeft, Align::kRight, Align::kRight});
  for (const v1::Worker& worker : answer->workers()) {
    if (options.json) {
      PrintData(JsonLine(ToJson(worker)));
      continue;
    }
    const bool has_job = !worker.job_id().empty();
    // An idle one may not be everybody's.
    const std::string job = has_job ? worker.job_id()
                            : worker.meant_for().empty()
                                ? std::string("-")
                                : absl::StrCat("for ", worker.meant_for());
    table.AddRow({worker.id(), worker.host(), worker.address(), worker.device(),
                  absl::StrCat(worker.cores()), worker.state(), job,
                  has_job ? absl::StrCat(worker.stage()) : "-",
                  has_job ? absl::StrCat(worker.replica()) : "-"});
  }
  if (!options.json) PrintData(table.ToString());
  if (answer->workers().empty()) {
    PrintNote(absl::StrCat(
        "no workers: start some with 'deltapipe-worker --coordinator ",
        options.coordinator, "'"));
  }
  return kExitOk;
}

struct WorkerDrainOptions {
  std::string coordinator;
  std::string worker;
  std::string reason = "asked for by deltapipe worker drain";
  bool json = false;
};

int DrainWorker(const WorkerDrainOptions& options) {
  JobClient client(options.coordinator);
  const auto worker = client.DrainWorker(options.worker, options.reason);
  if (!worker.ok()) return Fail(worker.status());
  if (options.json) {
    PrintData(JsonLine(ToJson(*worker)));
    return kExitOk;
  }
  PrintData(worker->job_id().empty()
                ? absl::StrCat(worker->id(), " was idle and is sent away\n")
                : absl::StrCat(worker->id(), " leaves as soon as ",
                               worker->job_id(),
                               " has written a checkpoint; the job goes on "
                               "without it\n"));
  return kExitOk;
}

void AddDrainVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<WorkerDrainOptions>();
  CLI::App* verb = group->add_subcommand(
      "drain", "Send a worker away, after a checkpoint if it is busy");
  verb->add_option("WORKER", options->worker, "The worker's id")->required();
  verb->add_option("--reason", options->reason, "What the events say")
      ->type_name("TEXT")
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe worker drain worker-3 --reason \"new kernel\"");
  verb->callback([=] { *chosen = [=] { return DrainWorker(*options); }; });
}

}  // namespace

void AddWorkerVerb(CLI::App* app, VerbAction* chosen) {
  CLI::App* group = app->add_subcommand(
      "worker", "Look at the coordinator's workers, or send one away");
  group->require_subcommand(1);
  SetExamples(group,
              "  deltapipe worker ls\n"
              "  deltapipe worker drain worker-3");
  auto options = std::make_shared<WorkerListOptions>();
  CLI::App* verb = group->add_subcommand("ls", "List the workers");
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe worker ls");
  verb->callback([=] { *chosen = [=] { return ListWorkers(*options); }; });
  AddDrainVerb(group, chosen);
}

}  // namespace deltapipe
