// deltapipe events JOB [-w]
#include <cstdint>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/clock.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/interruptible_client.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/reconnection.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/tuning_text.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct EventsOptions {
  std::string coordinator;
  std::string job;
  bool watch = false;
  bool steps = false;
  int64_t since = 0;
  Nanos reconnect_for{0};
  bool json = false;
};

/// "12  2026-01-31 12:00:05  tuning  TEXT", and the changes indented.
std::string EventText(const v1::JobEvent& event) {
  std::string text =
      absl::StrCat(event.sequence(), "  ", TimeText(event.time_millis()), "  ",
                   event.kind(), "  ", event.text(), "\n");
  const v1::TuningChange& change = event.tuning();
  if (!event.has_tuning()) return text;
  const std::string lines = ChangeLines(change.old_value(), change.new_value());
  if (!lines.empty()) {
    absl::StrAppend(&text, "    ",
                    absl::StrReplaceAll(lines, {{"\n", "\n    "}}));
    text.resize(text.size() - 4);
  }
  absl::StrAppend(&text, "    by ", change.principal(), ", from step ",
                  change.effective_step() + 1, " on",
                  change.reason().empty() ? "" : ": ", change.reason(), "\n");
  return text;
}

int Events(const EventsOptions& options) {
  InterruptibleClient client(options.coordinator);
  v1::WatchJobRequest request;
  request.set_id(options.job);
  request.set_after_sequence(options.since);
  request.set_stored_only(!options.watch);
  request.set_include_steps(options.steps);
  Reconnection reconnection(
      {options.coordinator, options.reconnect_for, PrintNote, Clock::Real()});
  const absl::Status status = client->Watch(
      request,
      [&](const v1::JobEvent& event) {
        PrintData(options.json ? JsonLine(ToJson(event)) : EventText(event));
        return true;
      },
      options.watch ? &reconnection : nullptr);
  if (client.signal() != 0) {
    return ExitCodeOfSignal(client.signal());
  }
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddEventsVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<EventsOptions>();
  CLI::App* verb =
      app->add_subcommand("events", "Print what happened to a job, in order");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_flag("-w,--watch", options->watch,
                 "Go on with new events until the job has ended");
  verb->add_flag("--steps", options->steps,
                 "Also tell each step as it is done; steps are not stored")
      ->needs("--watch");
  verb->add_option("--since", options->since,
                   "Only events after this number, as the first column has it")
      ->type_name("SEQ")
      ->check(NotNegative())
      ->capture_default_str();
  AddReconnectOption(verb, &options->reconnect_for)->needs("--watch");
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe events text-1\n"
              "  deltapipe events text-1 -w --json | jq -r .text\n"
              "With -w it goes on where it was when the coordinator is started "
              "again.");
  verb->callback([=] { *chosen = [=] { return Events(*options); }; });
}

}  // namespace deltapipe
