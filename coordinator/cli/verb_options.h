// Options that several verbs share, with the same names and help everywhere.
#ifndef DELTAPIPE_COORDINATOR_CLI_VERB_OPTIONS_H_
#define DELTAPIPE_COORDINATOR_CLI_VERB_OPTIONS_H_

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "base/clock.h"
#include "coordinator/spec/spec_reading.h"

namespace deltapipe {

inline constexpr char kDefaultCoordinator[] = "127.0.0.1:7707";
inline constexpr char kDefaultRuns[] = "runs";

/// --json
void AddJsonFlag(CLI::App* verb, bool* json);
/// Refuses what is not HOST:PORT, or has a port below `least_port`, in one
/// sentence: 0 is for addresses to listen on.
CLI::Validator HostPort(int least_port);
/// Refuses what is not a whole number of 0 or more.
CLI::Validator NotNegative();
/// --coordinator HOST:PORT, or $DELTAPIPE_COORDINATOR
void AddCoordinatorOption(CLI::App* verb, std::string* address);
/// --reconnect-for DURATION, for verbs that follow a job; 60 s by default.
CLI::Option* AddReconnectOption(CLI::App* verb, Nanos* limit);
/// --ca-file, --ca-hash and --token-file, which AddCoordinatorOption adds too.
void AddSecurityOptions(CLI::App* verb);
/// --runs DIR
void AddRunsOption(CLI::App* verb, std::string* runs);

/// SPEC and --set, which `run`, `submit`, `plan` and `compare` have.
struct SpecOptions {
  std::string path;
  std::vector<std::string> overrides;
  std::string inject;  // overrides stragglers.inject; empty: it does not
};
void AddSpecOptions(CLI::App* verb, SpecOptions* options);
/// --inject TEXT, for verbs that start a job.
void AddInjectOption(CLI::App* verb, SpecOptions* options);

/// Text that follows the options in a verb's help.
void SetExamples(CLI::App* verb, const std::string& examples);

/// Whether the file that a spec trains on is looked at: kIfHere leaves it be
/// where this machine has none.
enum class CorpusCheck { kNever, kIfHere, kAlways };

/// Reads the spec, and looks at its corpus as `check` says. Prints every
/// violation, or why the file cannot be read, and returns false (exit code 2)
/// unless all is well.
bool ReadSpecOrExplain(const SpecOptions& options, CorpusCheck check,
                       SpecReading* reading);

/// Prints every violation of the spec and returns false (exit code 2), or true
/// if there is none.
bool ExplainViolations(const SpecOptions& options, const SpecReading& reading);

/// Prints the error (each line of several on its own) and returns its exit
/// code.
int Fail(const absl::Status& status);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_VERB_OPTIONS_H_
