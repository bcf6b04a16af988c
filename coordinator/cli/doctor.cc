// deltapipe doctor
#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/doctor_checks.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct DoctorOptions {
  std::string coordinator;
  /// Whether one was named.
  bool needs_coordinator = false;
  std::string runs;
  std::vector<std::string> tls_files;
  bool json = false;
};

void Print(const CheckResult& result, bool json) {
  if (json) {
    Json object;
    object["schema"] = "deltapipe.cli.Check";
    object["check"] = result.name;
    object["health"] = HealthWord(result.health);
    object["detail"] = result.detail;
    object["remedy"] = result.remedy;
    PrintData(JsonLine(object));
    return;
  }
  std::string line = HealthWord(result.health);
  line.resize(6, ' ');
  absl::StrAppend(&line, result.name, ": ", result.detail, "\n");
  if (!result.remedy.empty()) {
    absl::StrAppend(&line, "      ", result.remedy, "\n");
  }
  PrintData(line);
}

int Doctor(const DoctorOptions& options) {
  JobClient client(options.coordinator);
  std::vector<CheckResult> results = {CheckWorkerProgram(), CheckPorts(),
                                      CheckRunsFolder(options.runs),
                                      CheckOpenFiles(), CheckDevices()};
  for (CheckResult& result : CheckTlsFiles(options.tls_files)) {
    results.push_back(std::move(result));
  }
  for (CheckResult& result : CheckCoordinator(&client, options.coordinator,
                                              options.needs_coordinator)) {
    results.push_back(std::move(result));
  }
  for (const CheckResult& result : results) Print(result, options.json);
  const bool has_failed = std::any_of(
      results.begin(), results.end(), [](const CheckResult& result) {
        return result.health == Health::kFailure;
      });
  return has_failed ? kExitJobFailed : kExitOk;
}

}  // namespace

void AddDoctorVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app->add_subcommand(
      "doctor", "Check this machine, and a coordinator, for what jobs need");
  AddCoordinatorOption(verb, &options->coordinator);
  AddRunsOption(verb, &options->runs);
  verb->add_option("--tls-file", options->tls_files,
                   "A certificate or key to look at; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  AddJsonFlag(verb, &options->json);
  SetExamples(verb,
              "  deltapipe doctor\n"
              "  deltapipe doctor --coordinator 10.77.0.1:7707\n"
              "Ends with 1 if anything fails; warnings do not count.");
  verb->callback([=] {
    options->needs_coordinator = verb->count("--coordinator") > 0;
    *chosen = [=] { return Doctor(*options); };
  });
}

}  // namespace deltapipe
