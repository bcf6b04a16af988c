// `deltapipe-lab sweep`: its options, what it prints and the files it writes.
//
//   SweepCommand command;
//   DeclareSweep(app, &command);
//   ... app.parse(...) ...
//   DP_RETURN_IF_ERROR(RunSweep(command, out));
#ifndef DELTAPIPE_WORKER_LAB_SWEEP_COMMAND_H_
#define DELTAPIPE_WORKER_LAB_SWEEP_COMMAND_H_

#include <CLI/CLI.hpp>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "worker/lab/codec_sweep.h"

namespace deltapipe {

struct SweepCommand {
  CodecSweep sweep;
  /// Empty: not written.
  std::string table_path;
  std::string plot_path;
  bool json = false;
};

/// Adds the subcommand to `app`; `command` must outlive parsing.
void DeclareSweep(CLI::App& app, SweepCommand* command);

/// Prints a table, or one JSON object a codec, once all are measured; then
/// writes the files. Errors: of RunCodecSweep, or a file cannot be written.
absl::Status RunSweep(const SweepCommand& command, std::ostream& out);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_SWEEP_COMMAND_H_
