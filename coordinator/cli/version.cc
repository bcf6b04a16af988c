// deltapipe version
#include "base/version.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct VersionOptions {
  std::string coordinator;
  bool json = false;
};

int PrintVersion(const VersionOptions& options) {
  v1::Version version;
  version.set_version(kVersion);
  version.set_protocol("deltapipe.v1");
  Json object = ToJson(version);
  std::string text = absl::StrCat("deltapipe ", kVersion, " (protocol ",
                                  version.protocol(), ")\n");
  if (!options.coordinator.empty()) {
    const auto remote = JobClient(options.coordinator).GetVersion();
    if (!remote.ok()) return Fail(remote.status());
    object["coordinator"] = ToJson(*remote);
    absl::StrAppend(&text, "coordinator ", remote->version(), " (protocol ",
                    remote->protocol(), ") at ", options.coordinator, "\n");
  }
  PrintData(options.json ? JsonLine(object) : text);
  return kExitOk;
}

}  // namespace

void AddVersionVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<VersionOptions>();
  CLI::App* verb = app->add_subcommand(
      "version", "Print the version, and that of a coordinator if asked");
  verb->add_option("--coordinator", options->coordinator,
                   "Ask this coordinator too")
      ->check(HostPort(1))
      ->type_name("HOST:PORT");
  AddSecurityOptions(verb);
  AddJsonFlag(verb, &options->json);
  SetExamples(verb,
              "  deltapipe version\n"
              "  deltapipe version --coordinator 10.77.0.1:7707");
  verb->callback([=] { *chosen = [=] { return PrintVersion(*options); }; });
}

}  // namespace deltapipe
