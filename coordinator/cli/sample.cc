// deltapipe sample JOB --prompt TEXT
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/program_path.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/launch/find_worker_binary.h"

namespace deltapipe {
namespace {

struct SampleOptions {
  std::string runs;
  std::string job;
  std::string prompt;
  int bytes = 400;
  double temperature = 0.8;
  uint64_t seed = 17;
  bool json = false;
};

int Sample(const SampleOptions& options) {
  const auto folder = FindRunFolder(options.runs, options.job);
  if (!folder.ok()) return Fail(folder.status());
  const auto worker = FindWorkerBinary();
  if (!worker.ok()) return Fail(worker.status());
  const std::vector<std::string> arguments = {
      "--sample",      *folder,
      "--prompt",      options.prompt,
      "--bytes",       absl::StrCat(options.bytes),
      "--temperature", absl::StrCat(options.temperature),
      "--seed",        absl::StrCat(options.seed)};
  if (!options.json) return Fail(BecomeProgram(*worker, arguments));
  const auto text = CaptureProgram(*worker, arguments);
  if (!text.ok()) return Fail(text.status());
  Json object;
  object["schema"] = "deltapipe.cli.Sample";
  object["run_folder"] = *folder;
  object["prompt"] = options.prompt;
  object["text"] = *text;
  PrintData(JsonLine(object));
  return kExitOk;
}

}  // namespace

void AddSampleVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<SampleOptions>();
  CLI::App* verb =
      app->add_subcommand("sample", "Write text with the model of a run");
  verb->add_option("JOB", options->job,
                   "A run's name below runs/, or its folder")
      ->required();
  verb->add_option("--prompt", options->prompt, "The text to go on from")
      ->required()
      ->type_name("TEXT");
  verb->add_option("--bytes", options->bytes, "How many bytes to write")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  verb->add_option("--temperature", options->temperature,
                   "0 always takes the likeliest byte; 1 draws as the model "
                   "says")
      ->type_name("T")
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  verb->add_option("--seed", options->seed, "Fixes what is drawn")
      ->type_name("N")
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
  AddRunsOption(verb, &options->runs);
  SetExamples(verb,
              "  deltapipe sample text --prompt \"It is a truth\"\n"
              "  deltapipe sample runs/text-2 --prompt \"She \" --bytes 80");
  verb->callback([=] { *chosen = [=] { return Sample(*options); }; });
}

}  // namespace deltapipe
