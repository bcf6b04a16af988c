// deltapipe submit SPEC [-d]
#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/interruptible_client.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_printer.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/reconnection.h"
#include "coordinator/cli/resumed_run.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct SubmitOptions {
  SpecOptions spec;
  std::string coordinator;
  std::string run_folder;
  Nanos reconnect_for{0};
  bool resume = false;
  bool detach = false;
  bool here = false;
  bool dry_run = false;
  bool json = false;
};

/// Names this submission, so that a retry by gRPC makes no second job.
std::string NewRequestId() {
  std::random_device entropy;
  return absl::StrCat(absl::Hex(entropy(), absl::kZeroPad8),
                      absl::Hex(entropy(), absl::kZeroPad8));
}

/// {"event":EVENT,"schema":"deltapipe.v1.Job","id":..,...}.
Json EventOfJob(const std::string& event, const v1::Job& job) {
  Json object;
  object["event"] = event;
  object.update(ToJson(job));
  return object;
}

/// The job, also from a coordinator that goes away just when it has ended.
absl::StatusOr<v1::Job> GetEnded(const std::string& id,
                                 InterruptibleClient* client,
                                 Reconnection* reconnection) {
  while (true) {
    auto job = (*client)->Get(id);
    if (job.ok()) return job;
    DP_RETURN_IF_ERROR((*client)->AwaitReturn(job.status(), reconnection));
  }
}

int WatchToEnd(const SubmitOptions& options, const v1::Job& job,
               InterruptibleClient* client) {
  JobPrinter printer(job.id(), options.json, Clock::Real());
  v1::WatchJobRequest request;
  request.set_id(job.id());
  request.set_include_steps(true);
  const auto tell = [&](const std::string& line) { printer.Note(line); };
  Reconnection reconnection(
      {options.coordinator, options.reconnect_for, tell, Clock::Real()});
  reconnection.OnAnswer();  // it has taken the job
  const absl::Status status = (*client)->Watch(
      request,
      [&](const v1::JobEvent& event) {
        printer.OnEvent(event);
        return true;
      },
      &reconnection);
  printer.Finish();
  if (client->signal() != 0) {
    PrintNote(absl::StrCat("the job goes on: 'deltapipe describe ", job.id(),
                           "' shows it, 'deltapipe cancel ", job.id(),
                           "' ends it"));
    return ExitCodeOfSignal(client->signal());
  }
  if (!status.ok()) return Fail(status);
  const auto ended = GetEnded(job.id(), client, &reconnection);
  printer.Finish();
  if (client->signal() != 0) return ExitCodeOfSignal(client->signal());
  if (!ended.ok()) return Fail(ended.status());
  if (options.json) {
    PrintData(JsonLine(ResultJson(*ended)));
  } else if (ended->result().steps() > 0) {
    PrintData(absl::StrCat("\n", SummaryTable(*ended), "\nmodel in ",
                           ModelFolder(*ended), "\n"));
  }
  if (ended->state() == v1::JOB_STATE_FAILED) {
    PrintError(absl::StrCat("the job failed: ", ended->reason()));
    PrintNote(absl::StrCat("'deltapipe logs ", job.id(), "' has the logs"));
  }
  return ExitCodeOf(ended->state());
}

/// With --here, what the coordinator cannot see of the checkpoints that the job
/// is to go on from. False if it has complained.
bool PrepareToGoOn(const SubmitOptions& options, const std::string& run_folder,
                   SpecReading* reading) {
  v1::JobSpec* const spec = &reading->spec;
  const bool has_place =
      !run_folder.empty() || !spec->checkpoint().folder().empty();
  // The coordinator says what is missing.
  if (!options.resume || !options.here || !has_place) return true;
  const auto checkpoints = CheckpointsOfRun(run_folder, *spec);
  KeepCut(checkpoints, spec);
  reading->Add(FindUncarried(checkpoints, *spec));
  return ExplainViolations(options.spec, *reading);
}

int Submit(const SubmitOptions& options) {
  SpecReading reading;
  const CorpusCheck check =
      options.here ? CorpusCheck::kAlways : CorpusCheck::kNever;
  if (!ReadSpecOrExplain(options.spec, check, &reading)) {
    return kExitUsage;
  }
  std::string run_folder = options.run_folder;
  if (options.here && !run_folder.empty()) {
    run_folder = AbsolutePath(run_folder);
  }
  if (!PrepareToGoOn(options, run_folder, &reading)) return kExitUsage;
  v1::JobSpec spec = reading.spec;
  const std::string path = spec.data().path();
  if (options.here && !path.empty()) {
    spec.mutable_data()->set_path(AbsolutePath(path));
  } else if (!path.empty() && path[0] != '/') {
    PrintNote(absl::StrCat("data.path '", path,
                           "' is relative: each worker looks for it from the "
                           "folder it was started in"));
  }

  InterruptibleClient client(options.coordinator);
  v1::SubmitJobRequest request;
  *request.mutable_spec() = spec;
  request.set_request_id(NewRequestId());
  request.set_validate_only(options.dry_run);
  request.set_run_folder(run_folder);
  request.set_resume(options.resume);
  const auto job = client->Submit(request);
  if (!job.ok() && client.signal() != 0) {
    PrintNote(
        "interrupted before the coordinator had answered: 'deltapipe ls' shows "
        "whether it has the job");
    return ExitCodeOfSignal(client.signal());
  }
  if (!job.ok()) return Fail(job.status());
  if (options.dry_run) {
    if (options.json) PrintData(JsonLine(EventOfJob("accepted", *job)));
    PrintNote("the coordinator accepts this spec; nothing was submitted");
    return kExitOk;
  }
  if (options.json) PrintData(JsonLine(EventOfJob("submitted", *job)));
  if (options.detach) {
    if (!options.json) PrintData(absl::StrCat(job->id(), "\n"));
    return kExitOk;
  }
  const std::string banner = absl::StrCat(job->id(), " = ", JobBanner(spec));
  if (options.json) {
    PrintNote(banner);
  } else {
    PrintData(absl::StrCat(banner, "\n"));
  }
  return WatchToEnd(options, *job, &client);
}

}  // namespace

void AddSubmitVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* verb =
      app->add_subcommand("submit", "Hand a job to a coordinator and watch it");
  AddSpecOptions(verb, &options->spec);
  AddInjectOption(verb, &options->spec);
  verb->add_flag("-d,--detach", options->detach,
                 "Print the job's id and do not watch it");
  AddReconnectOption(verb, &options->reconnect_for)->excludes("--detach");
  verb->add_flag("--here", options->here,
                 "The workers see this machine's files: check data.path here "
                 "and send it and --run-folder absolute");
  verb->add_flag("-n,--dry-run", options->dry_run,
                 "Have the coordinator check the spec only; 'plan' shows what "
                 "would run");
  verb->add_option("--run-folder", options->run_folder,
                   "Where the writing worker leaves the model; default: a "
                   "folder named like the job below its --folder. Workers of "
                   "other hosts refuse what is not beneath that or their "
                   "--write-root")
      ->type_name("DIR");
  verb->add_flag("--resume", options->resume,
                 "Go on from the newest checkpoint in --run-folder, or in the "
                 "spec's checkpoint.folder, that an earlier job left there");
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe submit examples/text.yaml\n"
              "  job=$(deltapipe submit -d examples/text.yaml)\n"
              "  deltapipe submit examples/text.yaml --resume --run-folder "
              "/runs/text-1 --set train.steps=4000\n"
              "Ctrl-C stops watching; the job goes on. So does watching when "
              "the coordinator\nis started again.");
  verb->callback([=] { *chosen = [=] { return Submit(*options); }; });
}

}  // namespace deltapipe
