// `deltapipe-lab stragglers`: its options, and what it prints.
//
//   StragglerCommand command;
//   DeclareStragglers(app, &command);
//   ... app.parse(...) ...
//   if (app.got_subcommand("stragglers")) {
//     return RunStragglers(command, out, err);
//   }
#ifndef DELTAPIPE_WORKER_LAB_STRAGGLERS_COMMAND_H_
#define DELTAPIPE_WORKER_LAB_STRAGGLERS_COMMAND_H_

#include <CLI/CLI.hpp>
#include <ostream>

#include "worker/lab/stragglers_experiment.h"

namespace deltapipe {

struct StragglerCommand {
  StragglerExperiment experiment;
  bool json = false;
};

/// Adds the subcommand to `app`; `command` must outlive parsing.
void DeclareStragglers(CLI::App& app, StragglerCommand* command);

/// Prints a table, or one JSON object a policy. Returns the exit code: 2, after
/// one sentence on `err`, for input that cannot be simulated.
int RunStragglers(const StragglerCommand& command, std::ostream& out,
                  std::ostream& err);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_STRAGGLERS_COMMAND_H_
