// deltapipe metrics JOB
#include <memory>

#include "base/clock.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_metrics_table.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct MetricsOptions {
  std::string coordinator;
  std::string job;
  bool json = false;
};

int Metrics(const MetricsOptions& options) {
  JobClient client(options.coordinator);
  const auto metrics = client.GetMetrics(options.job);
  if (!metrics.ok()) return Fail(metrics.status());
  PrintData(options.json
                ? JsonLine(ToJson(*metrics))
                : JobMetricsTables(*metrics, Clock::Real()->WallMillis()));
  return kExitOk;
}

}  // namespace

void AddMetricsVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<MetricsOptions>();
  CLI::App* verb = app->add_subcommand(
      "metrics", "Show a job's latest figures, by worker and by link");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe metrics text-1\n"
              "  deltapipe metrics text-1 --json | jq .step.loss");
  verb->callback([=] { *chosen = [=] { return Metrics(*options); }; });
}

}  // namespace deltapipe
