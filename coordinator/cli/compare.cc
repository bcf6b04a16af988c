// deltapipe compare SPEC
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/image_model.h"
#include "base/optimizer_kind.h"
#include "base/status_macros.h"
#include "base/temporary_folder.h"
#include "coordinator/cli/arm_figures.h"
#include "coordinator/cli/embedded_job.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_printer.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/spec/synchronisation.h"

namespace deltapipe {
namespace {

struct CompareOptions {
  SpecOptions spec;
  double seconds = 60;
  int steps = 0;
  bool json = false;
};

/// How long an arm that has been measured may take to end its step.
constexpr std::chrono::seconds kEndGrace(60);
/// 1-bit LAMB needs a few steps in full precision, even for a measurement.
constexpr int64_t kLeastWarmup = 5;

v1::JobSpec BaseSpec(const CompareOptions& options, v1::JobSpec spec) {
  if (!spec.data().path().empty()) {
    spec.mutable_data()->set_path(AbsolutePath(spec.data().path()));
  }
  if (options.steps > 0) spec.mutable_train()->set_steps(options.steps);
  spec.mutable_checkpoint()->set_every(0);
  spec.mutable_train()->set_validate_every(0);
  return spec;
}

/// The same job with `codec` for everything, gradients never in one bit.
v1::JobSpec PlainArm(v1::JobSpec spec, const std::string& codec) {
  v1::CompressionSpec* compression = spec.mutable_compression();
  compression->set_activations(codec);
  compression->set_activation_gradients(codec);
  compression->set_gradients(codec);
  return spec;
}

/// The step after which the compressed arm compresses gradients: soon enough to
/// be measured within the arm's time, which held `num_plain_steps` uncompressed
/// steps.
int64_t WarmupSteps(const v1::JobSpec& spec, size_t num_plain_steps) {
  const int64_t wanted =
      std::max(kLeastWarmup, static_cast<int64_t>(num_plain_steps) / 4);
  return std::min(wanted, CompressAfterStep(spec.train()));
}

class Comparison {
 public:
  Comparison(const CompareOptions& options, const v1::JobSpec& spec)
      : options_(options), spec_(BaseSpec(options, spec)) {}

  int Run() {
    const auto scratch = TemporaryFolder::Create("compare");
    if (!scratch.ok()) return Fail(scratch.status());
    scratch_ = scratch->path();
    // Nothing of an arm is worth keeping; its workers die with this process.
    SignalWatch signals([&scratch](int signal, int) {
      scratch->Remove();
      _exit(ExitCodeOfSignal(signal));
    });
    const absl::Status measured = MeasureAll();
    if (!measured.ok()) return Fail(measured);
    Report();
    return kExitOk;
  }

 private:
  absl::Status MeasureAll() {
    std::vector<v1::StepSummary> steps;
    DP_RETURN_IF_ERROR(RunArm("uncompressed", PlainArm(spec_, "none"), &steps));
    AddArm("uncompressed", steps);
    v1::JobSpec compressed = spec_;
    const bool has_warmup =
        IsCompressingKind(spec_.train().optimizer().kind()) &&
        !IsPlainGradientCodec(spec_.compression().gradients());
    if (has_warmup) {
      warmup_steps_ = WarmupSteps(spec_, steps.size());
      compressed.mutable_train()->mutable_optimizer()->set_compress_after_step(
          absl::StrCat(warmup_steps_));
    }
    DP_RETURN_IF_ERROR(RunArm("bf16", PlainArm(spec_, "cast(bf16)"), &steps));
    AddArm("bf16", steps);
    DP_RETURN_IF_ERROR(RunArm("compressed", compressed, &steps));
    if (!has_warmup) {
      AddArm("compressed", steps);
      return absl::OkStatus();
    }
    AddArm("compressed, warm-up", StepsOfPhase(steps, /*compressed=*/false));
    const auto late = StepsOfPhase(steps, /*compressed=*/true);
    if (late.empty()) {
      PrintNote(
          "the compressed arm did not get past its warm-up: give it more "
          "time with --seconds");
    } else {
      AddArm("compressed", late);
    }
    return absl::OkStatus();
  }

  void AddArm(const std::string& name,
              const std::vector<v1::StepSummary>& steps) {
    const double tokens_per_step =
        static_cast<double>(spec_.train().batch()) *
        static_cast<double>(
            TargetsPerSample(spec_.model().kind(), spec_.model().context()));
    arms_.push_back(MeasureArm(name, steps, tokens_per_step));
    if (options_.json) PrintData(JsonLine(ArmJson(arms_.back())));
  }

  /// Runs `spec` for the time or the steps of an arm.
  absl::Status RunArm(const std::string& name, const v1::JobSpec& spec,
                      std::vector<v1::StepSummary>* steps) {
    steps->clear();
    EmbeddedJobOptions job_options;
    job_options.spec = spec;
    job_options.run_folder = absl::StrCat(scratch_, "/", name);
    DP_RETURN_IF_ERROR(MakeDirectories(job_options.run_folder));
    EmbeddedJob job(job_options);
    return Annotate(WatchArm(name, &job, steps),
                    absl::StrCat("the arm '", name, "'"));
  }

  absl::Status WatchArm(const std::string& name, EmbeddedJob* job,
                        std::vector<v1::StepSummary>* steps) {
    DP_RETURN_IF_ERROR(job->Start());
    JobPrinter printer(name, /*json=*/false, Clock::Real());
    Nanos began{0};
    bool is_over = false;
    DP_ASSIGN_OR_RETURN(
        const v1::Job ended, job->Watch([&](const v1::JobEvent& event) {
          if (event.kind() != "step" || is_over) return;
          steps->push_back(event.step());
          if (!options_.json) printer.OnEvent(event);
          const Nanos now = Clock::Real()->Now();
          if (began.count() == 0) began = now;
          const double elapsed =
              std::chrono::duration<double>(now - began).count();
          if (elapsed < options_.seconds) return;
          is_over = true;
          job->Interrupt("measured", kEndGrace);
        }));
    if (ended.state() == v1::JOB_STATE_FAILED) {
      return absl::InternalError(ended.reason());
    }
    return absl::OkStatus();
  }

  std::string Conditions() const {
    std::string text = EmulationText(spec_);
    if (text.empty()) text = "links as they are (no network.emulate)";
    if (warmup_steps_ > 0) {
      absl::StrAppend(
          &text, "; the compressed arm compresses gradients after step ",
          warmup_steps_, " instead of ",
          spec_.train().optimizer().compress_after_step(),
          ", to be measured within its time: see 'run' for its final loss");
    }
    return text;
  }

  void Report() const {
    if (!options_.json) {
      PrintData(absl::StrCat("\n", spec_.name(), ": ", Conditions(), "\n\n",
                             ArmTable(arms_)));
      return;
    }
    Json result;
    result["event"] = "result";
    result["schema"] = "deltapipe.cli.Comparison";
    result["name"] = spec_.name();
    result["conditions"] = Conditions();
    result["arms"] = Json::array();
    for (const ArmFigures& arm : arms_) {
      result["arms"].push_back(ArmJson(arm));
    }
    PrintData(JsonLine(result));
  }

  const CompareOptions options_;
  const v1::JobSpec spec_;
  /// Holds a folder per arm; set before the signals are watched.
  std::string scratch_;
  std::vector<ArmFigures> arms_;
  int64_t warmup_steps_ = 0;
};

int Compare(const CompareOptions& options) {
  SpecReading reading;
  if (!ReadSpecOrExplain(options.spec, CorpusCheck::kAlways, &reading)) {
    return kExitUsage;
  }
  const std::string banner = JobBanner(BaseSpec(options, reading.spec));
  if (options.json) {
    PrintNote(banner);
  } else {
    PrintData(absl::StrCat(banner, "\n"));
  }
  return Comparison(options, reading.spec).Run();
}

}  // namespace

void AddCompareVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App* verb = app->add_subcommand("compare",
                                       "Measure a job uncompressed, in bf16 "
                                       "and compressed, over the same links");
  AddSpecOptions(verb, &options->spec);
  verb->add_option("--seconds", options->seconds,
                   "The longest time of each arm, from its first step")
      ->type_name("S")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  verb->add_option("--steps", options->steps,
                   "The most steps of each arm; 0 is the spec's")
      ->type_name("N")
      ->check(NotNegative())
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  SetExamples(verb,
              "  deltapipe compare examples/text.yaml\n"
              "  deltapipe compare examples/text.yaml --seconds 20 --set "
              "network.emulate.bandwidth=30Mbit/s");
  verb->callback([=] { *chosen = [=] { return Compare(*options); }; });
}

}  // namespace deltapipe
