// The verbs of `deltapipe`, one file each. Each function adds its subcommand
// and, when that was parsed, leaves in `chosen` what to do.
#ifndef DELTAPIPE_COORDINATOR_CLI_VERBS_H_
#define DELTAPIPE_COORDINATOR_CLI_VERBS_H_

#include <functional>
#include <string>

#include "CLI/CLI.hpp"

namespace deltapipe {

/// Does what was asked for and returns the exit code.
using VerbAction = std::function<int()>;

void AddRunVerb(CLI::App* app, VerbAction* chosen);
void AddCompareVerb(CLI::App* app, VerbAction* chosen);
void AddPlanVerb(CLI::App* app, VerbAction* chosen);
void AddRenderVerb(CLI::App* app, VerbAction* chosen);
void AddSampleVerb(CLI::App* app, VerbAction* chosen);
void AddSubmitVerb(CLI::App* app, VerbAction* chosen);
void AddListVerb(CLI::App* app, VerbAction* chosen);
void AddDescribeVerb(CLI::App* app, VerbAction* chosen);
void AddLogsVerb(CLI::App* app, VerbAction* chosen);
void AddMetricsVerb(CLI::App* app, VerbAction* chosen);
void AddStragglersVerb(CLI::App* app, VerbAction* chosen);
void AddTraceVerb(CLI::App* app, VerbAction* chosen);
void AddEventsVerb(CLI::App* app, VerbAction* chosen);
void AddTopVerb(CLI::App* app, VerbAction* chosen);
void AddSetVerb(CLI::App* app, VerbAction* chosen);
void AddBudgetVerb(CLI::App* app, VerbAction* chosen);
void AddPauseVerb(CLI::App* app, VerbAction* chosen);
void AddJobVerb(CLI::App* app, VerbAction* chosen);
void AddCheckpointCreateVerb(CLI::App* group, VerbAction* chosen);
void AddResumeVerb(CLI::App* app, VerbAction* chosen);
void AddCancelVerb(CLI::App* app, VerbAction* chosen);
void AddCheckpointVerb(CLI::App* app, VerbAction* chosen);
void AddWorkerVerb(CLI::App* app, VerbAction* chosen);
void AddCoordinatorVerb(CLI::App* app, VerbAction* chosen);
void AddTokenVerb(CLI::App* app, VerbAction* chosen);
void AddDoctorVerb(CLI::App* app, VerbAction* chosen);
void AddLabVerb(CLI::App* app, VerbAction* chosen);
void AddVersionVerb(CLI::App* app, VerbAction* chosen);
void AddCompletionVerb(CLI::App* app, VerbAction* chosen);

/// Every verb, in the order of the help.
void AddAllVerbs(CLI::App* app, VerbAction* chosen);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_VERBS_H_
