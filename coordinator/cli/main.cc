// deltapipe: the command line and the coordinator. Links neither LibTorch nor
// CUDA; those live in deltapipe-worker.
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/utf8.h"
#include "base/version.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/usage_hint.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

/// `code`, unless what was written to stdout did not get there.
int AfterOutput(int code) {
  std::cout.flush();
  if (IsOutputWhole() || code != kExitOk) return code;
  PrintError("cannot write to stdout: is its disk full, or its reader gone?");
  return kExitJobFailed;
}

}  // namespace
}  // namespace deltapipe

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

  for (int i = 1; i < argc; ++i) {
    const absl::Status readable =
        CheckUtf8(absl::StrCat("argument ", i), argv[i]);
    if (!readable.ok()) {
      PrintError(std::string(readable.message()));
      return ExitCodeOf(readable);
    }
  }
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
    return AfterOutput(app.exit(request));  // --help or --version
  } catch (const CLI::ParseError& error) {
    PrintError(UsageMessage(app, error));
    return kExitUsage;
  }
  return AfterOutput(action());
}
