#include "coordinator/cli/verbs.h"

namespace deltapipe {

void AddAllVerbs(CLI::App* app, VerbAction* chosen) {
  AddRunVerb(app, chosen);
  AddCompareVerb(app, chosen);
  AddPlanVerb(app, chosen);
  AddRenderVerb(app, chosen);
  AddSampleVerb(app, chosen);
  AddSubmitVerb(app, chosen);
  AddListVerb(app, chosen);
  AddDescribeVerb(app, chosen);
  AddLogsVerb(app, chosen);
  AddMetricsVerb(app, chosen);
  AddStragglersVerb(app, chosen);
  AddTraceVerb(app, chosen);
  AddEventsVerb(app, chosen);
  AddTopVerb(app, chosen);
  AddSetVerb(app, chosen);
  AddBudgetVerb(app, chosen);
  AddJobVerb(app, chosen);
  AddPauseVerb(app, chosen);
  AddResumeVerb(app, chosen);
  AddCancelVerb(app, chosen);
  AddCheckpointVerb(app, chosen);
  AddWorkerVerb(app, chosen);
  AddCoordinatorVerb(app, chosen);
  AddTokenVerb(app, chosen);
  AddDoctorVerb(app, chosen);
  AddLabVerb(app, chosen);
  AddVersionVerb(app, chosen);
  AddCompletionVerb(app, chosen);
}

}  // namespace deltapipe
