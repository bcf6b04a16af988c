// deltapipe: the command line and the coordinator. Links neither LibTorch nor
// CUDA; those live in deltapipe-worker.
#include <string>

#include "base/log.h"
#include "base/version.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/usage_hint.h"
#include "coordinator/cli/verbs.h"

int main(int argc, char** argv) {
  using namespace deltapipe;  // NOLINT: the program's own namespace
  CLI::App app(
      "Trains a model cut into pipeline stages and copied over replicas, over "
      "slow networks, with compressed traffic.",
      "deltapipe");
  app.set_version_flag("--version", kVersion, "Print the version");
  app.require_subcommand(1);
  app.footer(std::string("Examples:\n"
                         "  deltapipe run examples/text.yaml\n"
                         "  deltapipe run examples/text.yaml --set "
                         "data.path=mine.txt\n"
                         "  deltapipe sample text --prompt \"It is a truth\"\n"
                         "\n") +
             kExitCodeHelp);
  VerbAction action;
  AddAllVerbs(&app, &action);
  ConfigureLog(LogLevel::kInfo, "deltapipe");

  const std::string unknown = UnknownVerbMessage(app, argc, argv);
  if (!unknown.empty()) {
    PrintError(unknown);
    return kExitUsage;
  }
  if (argc < 2) {
    PrintNote(app.help());
    return kExitUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {
    return app.exit(request);  // --help or --version, on stdout
  } catch (const CLI::ParseError& error) {
    PrintError(UsageMessage(app, error));
    return kExitUsage;
  }
  return action();
}
