// The verbs of `deltapipe checkpoint`; checkpoint.cc gathers them.
#ifndef DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_VERBS_H_
#define DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_VERBS_H_

#include <memory>

#include "CLI/CLI.hpp"
#include "coordinator/cli/checkpoint_listing.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {

/// --step, --generation and --runs, besides the word that was added already.
void AddChoiceOptions(CLI::App* verb, CheckpointChoice* choice);

/// {"schema":SCHEMA,"path":...,"step":...,...,"state":...,"problem":...}.
Json CheckpointJson(const std::string& schema, const ListedCheckpoint& listed);

void AddCheckpointVerifyVerb(CLI::App* group, VerbAction* chosen);
void AddCheckpointExportVerb(CLI::App* group, VerbAction* chosen);
void AddCheckpointRemoveVerb(CLI::App* group, VerbAction* chosen);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_CHECKPOINT_VERBS_H_
