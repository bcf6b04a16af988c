// deltapipe set JOB PATH=VALUE...
#include <memory>

#include "absl/strings/str_cat.h"
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

/// Others change the job too, the tuner among them.
constexpr int kTries = 3;

struct SetOptions {
  std::string coordinator;
  std::string job;
  std::vector<std::string> edits;
  std::string etag;
  std::string reason;
  bool dry_run = false;
  bool json = false;
};

int Set(const SetOptions& options) {
  JobClient client(options.coordinator);
  for (int attempt = 1;; ++attempt) {
    const auto before = client.GetTuning(options.job);
    if (!before.ok()) return Fail(before.status());
    if (options.edits.empty()) {
      PrintData(options.json ? JsonLine(ToJson(*before)) : TuningText(*before));
      return kExitOk;
    }
    auto request = ParseTuningEdits(options.edits, *before);
    if (!request.ok()) return Fail(request.status());
    if (!options.etag.empty()) {
      request->mutable_tuning()->set_etag(options.etag);
    }
    request->set_reason(options.reason);
    request->set_validate_only(options.dry_run);
    const auto after = client.UpdateTuning(*request);
    const bool may_retry = options.etag.empty() && attempt < kTries;
    if (absl::IsAborted(after.status()) && may_retry) continue;
    if (!after.ok()) return Fail(after.status());
    PrintData(options.json ? JsonLine(ToJson(*after))
                           : UpdateText(*before, *after, options.dry_run));
    if (options.dry_run) {
      PrintNote("the coordinator accepts this; nothing was changed");
    }
    return kExitOk;
  }
}

}  // namespace

void AddSetVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<SetOptions>();
  CLI::App* verb = app->add_subcommand(
      "set", "Change codecs, rates and policies of a job that runs");
  verb->add_option("JOB", options->job, "The job's id")->required();
  verb->add_option("EDITS", options->edits,
                   "What to change; without any, all knobs are shown")
      ->type_name("PATH=VALUE");
  verb->add_option("--etag", options->etag,
                   "Only if the tuning is still the one with this etag");
  verb->add_option("--reason", options->reason, "What the event log says")
      ->type_name("TEXT");
  verb->add_flag("-n,--dry-run", options->dry_run,
                 "Have the coordinator check the change only");
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe set text-1 'activations=delta(int(2))'\n"
              "  deltapipe set text-1 'boundaries[0].rate_limit=100Mbit/s' "
              "--reason \"backup runs\"\n"
              "  deltapipe set text-1 tuner.mode=apply "
              "tuner.error_budget=0.1\n"
              "Paths: activations, activation_gradients and rate_limit of all "
              "boundaries or of\nboundaries[N], boundaries[N-M]; gradients, "
              "saved_activations, straggler_policy,\ninject, budget, "
              "tuner.mode, tuner.error_budget. The value auto is what the job "
              "began with.");
  verb->callback([=] { *chosen = [=] { return Set(*options); }; });
}

}  // namespace deltapipe
