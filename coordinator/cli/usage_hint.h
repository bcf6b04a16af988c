// What to say about a command line that cannot be read: the nearest known verb
// or flag.
#ifndef DELTAPIPE_COORDINATOR_CLI_USAGE_HINT_H_
#define DELTAPIPE_COORDINATOR_CLI_USAGE_HINT_H_

#include <string>

#include "CLI/CLI.hpp"

namespace deltapipe {

/// "unknown verb 'rnu' (did you mean 'run'?); see deltapipe --help" if the
/// first word of the command line names no verb of `app`, else "".
std::string UnknownVerbMessage(const CLI::App& app, int argc,
                               const char* const* argv);

/// A sentence for `error`, which parsing with `app` threw.
std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_USAGE_HINT_H_
