// deltapipe trace JOB
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/interruptible_client.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct TraceOptions {
  std::string coordinator;
  std::string job;
  int steps = 5;
  std::string out = "trace.json";
  bool json = false;
};

int Trace(const TraceOptions& options) {
  InterruptibleClient client(options.coordinator);
  v1::TraceJobRequest request;
  request.set_id(options.job);
  request.set_steps(options.steps);
  const auto trace = client->Trace(request);
  if (client.signal() != 0) {
    return ExitCodeOfSignal(client.signal());
  }
  if (!trace.ok()) return Fail(trace.status());
  const absl::Status written =
      WriteFileAtomically(options.out, trace->chrome_json());
  if (!written.ok()) return Fail(written);
  if (options.json) {
    Json object;
    object["event"] = "trace";
    object["schema"] = "deltapipe.cli.Trace";
    object["job"] = options.job;
    object["steps"] = options.steps;
    object["path"] = options.out;
    PrintData(JsonLine(object));
  } else {
    PrintData(absl::StrCat("wrote ", options.out,
                           ": open it with ui.perfetto.dev or "
                           "chrome://tracing\n"));
  }
  return kExitOk;
}

}  // namespace

void AddTraceVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<TraceOptions>();
  CLI::App* verb = app->add_subcommand(
      "trace", "Record what a job's workers do in its next steps");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_option("--steps", options->steps, "How many steps, up to 100")
      ->type_name("N")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  verb->add_option("--out", options->out, "Where to write the trace, JSON")
      ->type_name("FILE")
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe trace text-1 --steps 5 --out trace.json");
  verb->callback([=] { *chosen = [=] { return Trace(*options); }; });
}

}  // namespace deltapipe
