// deltapipe logs JOB [-f]
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/interruptible_client.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct LogsOptions {
  std::string coordinator;
  std::string job;
  bool follow = false;
  int tail = 0;
  bool json = false;
};

std::string LineText(const v1::LogLine& line) {
  static constexpr const char* kLevels[] = {"debug", "info", "warning",
                                            "error"};
  const int level = line.level() < 0 ? 0 : line.level() > 3 ? 3 : line.level();
  return absl::StrCat(TimeText(line.time_millis()), " ", line.worker_id(), " ",
                      kLevels[level], " ", line.text(), "\n");
}

int Logs(const LogsOptions& options) {
  InterruptibleClient client(options.coordinator);
  v1::ReadLogsRequest request;
  request.set_id(options.job);
  request.set_follow(options.follow);
  request.set_tail(options.tail);
  const absl::Status status =
      client->ReadLogs(request, [&](const v1::LogLine& line) {
        PrintData(options.json ? JsonLine(ToJson(line)) : LineText(line));
        return true;
      });
  if (client.signal() != 0) {
    return ExitCodeOfSignal(client.signal());
  }
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddLogsVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<LogsOptions>();
  CLI::App* verb =
      app->add_subcommand("logs", "Print what a job's workers logged");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_flag("-f,--follow", options->follow,
                 "Go on with new lines until the job has ended");
  verb->add_option("--tail", options->tail,
                   "Begin with the last N lines; 0 begins with the first")
      ->type_name("N")
      ->check(NotNegative())
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe logs text-1 -f --tail 20");
  verb->callback([=] { *chosen = [=] { return Logs(*options); }; });
}

}  // namespace deltapipe
