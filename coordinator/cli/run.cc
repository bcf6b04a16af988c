// deltapipe run SPEC
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/image_model.h"
#include "coordinator/cli/embedded_job.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_printer.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/resumed_run.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

/// Leaves time to end the processes within the 2 s that Ctrl-C may take.
constexpr std::chrono::milliseconds kInterruptGrace(1200);
/// What Kubernetes and service managers give by default.
constexpr std::chrono::seconds kPauseGrace(25);

struct RunOptions {
  SpecOptions spec;
  std::string runs;
  int workers = 0;
  bool resume = false;
  bool json = false;
};

void PrintStart(const v1::JobSpec& spec, const std::string& folder, bool json) {
  if (!json) {
    PrintData(absl::StrCat(JobBanner(spec), "\n"));
    PrintNote(absl::StrCat("everything about it is kept in ", ShortPath(folder),
                           "/"));
    return;
  }
  PrintNote(JobBanner(spec));
  Json object;
  object["event"] = "start";
  object["schema"] = "deltapipe.cli.Start";
  object["name"] = spec.name();
  object["run_folder"] = folder;
  object["emulated_links"] = EmulationText(spec);
  object["total_steps"] = spec.train().steps();
  PrintData(JsonLine(object));
}

/// What to type next, where the model is.
std::string ClosingLines(const std::string& folder, const v1::Job& job) {
  const std::string model = folder + "/model.safetensors";
  if (access(model.c_str(), R_OK) != 0) {
    return absl::StrCat("logs and metrics: ", ShortPath(folder), "/\n");
  }
  std::string text = absl::StrCat("\nmodel    ", ShortPath(model), "\n");
  const std::string& kind = job.spec().model().kind();
  if (kind != "synthetic" && !IsImageModel(kind)) {
    // As this program was called, and so that it finds the folder anywhere.
    absl::StrAppend(&text, "try      ", program_invocation_name, " sample ",
                    ShortPath(folder), " --prompt \"It is a truth\"\n");
  }
  return text;
}

int ReportEnd(const v1::Job& job, const std::string& folder, bool json,
              int signal) {
  if (json) {
    Json result = ResultJson(job);
    result["run_folder"] = folder;
    PrintData(JsonLine(result));
  } else if (job.result().steps() > 0) {
    PrintData(absl::StrCat("\n", SummaryTable(job), ClosingLines(folder, job)));
  }
  const bool is_unfinished = job.state() == v1::JOB_STATE_CANCELLED;
  if (is_unfinished && job.result().steps() == 0) PrintNote(job.reason());
  if (job.state() == v1::JOB_STATE_FAILED) {
    PrintError(absl::StrCat("the job failed: ", job.reason()));
    PrintNote(
        absl::StrCat("the workers' logs are in ", ShortPath(folder), "/logs/"));
  }
  if (job.state() == v1::JOB_STATE_PAUSED) PrintNote(job.reason());
  if (signal != 0 && job.state() != v1::JOB_STATE_PAUSED) {
    return ExitCodeOfSignal(signal);
  }
  return ExitCodeOf(job.state());
}

int RunJob(const v1::JobSpec& spec, const std::string& folder,
           const RunOptions& options) {
  std::ofstream metrics(folder + "/metrics.ndjson",
                        options.resume ? std::ios::app : std::ios::trunc);
  EmbeddedJobOptions job_options;
  job_options.spec = spec;
  job_options.run_folder = folder;
  job_options.num_workers = options.workers;
  job_options.resume = options.resume;
  EmbeddedJob job(job_options);
  SignalWatch signals([&job, &folder](int signal, int count) {
    if (count == 1 && signal == SIGTERM &&
        job.Pause("terminated", kPauseGrace)) {
      PrintNote(
          "\npausing: a checkpoint is written after the step being computed; "
          "`run --resume` goes on from it; once more ends at once");
      return;
    }
    if (count == 1 && job.Interrupt("interrupted", kInterruptGrace)) {
      PrintNote(
          "\nending: the model is written if the step being computed ends "
          "within a second (checkpoint.every writes it along the way); once "
          "more ends at once");
      return;
    }
    // The workers die with this process, whatever they are writing.
    RemoveModelTemporaries(folder);
    _exit(ExitCodeOfSignal(signal));
  });
  PrintStart(spec, folder, options.json);
  const absl::Status started = job.Start();
  if (!started.ok()) return Fail(started);

  JobPrinter printer(spec.name(), options.json, Clock::Real());
  bool is_metrics_full = false;
  const auto ended = job.Watch([&](const v1::JobEvent& event) {
    printer.OnEvent(event);
    metrics << JsonLine(EventJson(event)) << std::flush;
    if (metrics.good() || is_metrics_full) return;
    is_metrics_full = true;
    PrintNote(absl::StrCat("warning: cannot write ", ShortPath(folder),
                           "/metrics.ndjson: is the disk full? The job goes "
                           "on without it"));
  });
  printer.Finish();
  if (!ended.ok()) {
    v1::Job broken;
    const bool is_interrupted = signals.first_signal() != 0;
    broken.set_state(is_interrupted ? v1::JOB_STATE_CANCELLED
                                    : v1::JOB_STATE_FAILED);
    broken.set_reason(std::string(ended.status().message()));
    return ReportEnd(broken, folder, options.json, signals.first_signal());
  }
  metrics << JsonLine(ResultJson(*ended)) << std::flush;
  return ReportEnd(*ended, folder, options.json, signals.first_signal());
}

int Run(const RunOptions& options) {
  SpecReading reading;
  if (!ReadSpecOrExplain(options.spec, CorpusCheck::kAlways, &reading)) {
    return kExitUsage;
  }
  v1::JobSpec spec = reading.spec;
  const int needed = spec.parallel().stages() * spec.parallel().replicas();
  if (options.workers > 0 && options.workers < needed) {
    PrintError(absl::StrCat("--workers ", options.workers, ": expected ",
                            needed, " or more, one per stage and replica"));
    return kExitUsage;
  }
  if (!spec.data().path().empty()) {
    spec.mutable_data()->set_path(AbsolutePath(spec.data().path()));
  }
  const auto folder = options.resume
                          ? FindResumableFolder(options.runs, spec.name())
                          : CreateRunFolder(options.runs, spec.name());
  if (!folder.ok()) return Fail(folder.status());
  if (options.resume) {
    const auto checkpoints = CheckpointsOfRun(*folder, spec);
    KeepCut(checkpoints, &spec);
    reading.Add(FindUncarried(checkpoints, spec));
    if (!ExplainViolations(options.spec, reading)) return kExitUsage;
  }
  const absl::Status written =
      WriteFileAtomically(*folder + "/spec.yaml", JobSpecYaml(spec));
  if (!written.ok()) return Fail(written);
  return RunJob(spec, *folder, options);
}

}  // namespace

void AddRunVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* verb = app->add_subcommand(
      "run", "Run a job on this machine and wait for its end");
  AddSpecOptions(verb, &options->spec);
  AddInjectOption(verb, &options->spec);
  verb->add_option("--workers", options->workers,
                   "Worker processes; 0 is one per stage and replica")
      ->type_name("N")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  verb->add_flag("--resume", options->resume,
                 "Go on in the run's folder, from its newest checkpoint");
  AddJsonFlag(verb, &options->json);
  AddRunsOption(verb, &options->runs);
  SetExamples(verb,
              "  deltapipe run examples/text.yaml\n"
              "  deltapipe run examples/text.yaml --set data.path=mine.txt "
              "--set train.steps=300\n"
              "  deltapipe run examples/mlp.yaml --json > events.ndjson\n"
              "Ctrl-C ends the job and everything it started within 2 s. The "
              "model is\n"
              "written if the step being computed ends in half of that; for "
              "longer steps,\n"
              "let checkpoint.every write it along the way. Ctrl-C twice ends "
              "at once.\n"
              "SIGTERM writes a checkpoint and ends with exit code 8: "
              "--resume goes on from it.");
  verb->callback([=] { *chosen = [=] { return Run(*options); }; });
}

}  // namespace deltapipe
