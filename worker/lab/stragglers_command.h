// `deltapipe-lab stragglers`: its options, and what it prints.
//
//   StragglerCommand command;
//   DeclareStragglers(app, &command);
//   ... app.parse(...) ...
//   DP_RETURN_IF_ERROR(RunStragglers(command, out));
#ifndef DELTAPIPE_WORKER_LAB_STRAGGLERS_COMMAND_H_
#define DELTAPIPE_WORKER_LAB_STRAGGLERS_COMMAND_H_

#include <CLI/CLI.hpp>
#include <ostream>

#include "absl/status/status.h"
#include "worker/lab/stragglers_experiment.h"

namespace deltapipe {

struct StragglerCommand {
  StragglerExperiment experiment;
  bool json = false;
};

/// Adds the subcommand to `app`; `command` must outlive parsing.
void DeclareStragglers(CLI::App& app, StragglerCommand* command);

/// Prints a table, or one JSON object a policy. Errors: the input cannot be
/// simulated.
absl::Status RunStragglers(const StragglerCommand& command, std::ostream& out);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_STRAGGLERS_COMMAND_H_
