// deltapipe job audit JOB: whether every sample was used exactly once.
#include <memory>

#include "base/sample_ledger.h"
#include "coordinator/cli/audit_report.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct AuditOptions {
  std::string coordinator;
  std::string job;
  bool json = false;
};

LedgerQuestion QuestionOf(const v1::JobLedger& ledger) {
  LedgerQuestion question;
  question.order.num_samples = ledger.train_samples();
  question.order.num_slots = ledger.num_slots();
  question.order.microbatch = ledger.microbatch_samples();
  question.order.seed = ledger.seed();
  question.num_steps_begun = ledger.steps_begun();
  for (const v1::CommittedRange& told : ledger.ranges()) {
    LedgerRange range;
    range.generation = told.generation();
    range.first_step = told.first_step();
    range.end_step = told.end_step();
    range.samples_applied = told.samples_applied();
    range.samples_dropped = told.samples_dropped();
    range.dropped_before = told.dropped_before();
    question.ranges.push_back(range);
  }
  return question;
}

int Audit(const AuditOptions& options) {
  const auto ledger = JobClient(options.coordinator).GetLedger(options.job);
  if (!ledger.ok()) return Fail(ledger.status());
  const LedgerAudit audit = AuditLedger(QuestionOf(*ledger));
  PrintData(options.json ? JsonLine(AuditJson(options.job, audit))
                         : AuditText(audit));
  for (const std::string& note : audit.notes) PrintNote(note);
  for (const std::string& finding : audit.findings) PrintError(finding);
  return audit.is_sound() ? kExitOk : kExitJobFailed;
}

}  // namespace

void AddJobVerb(CLI::App* app, VerbAction* chosen) {
  CLI::App* group =
      app->add_subcommand("job", "Check what a job did with its samples");
  group->require_subcommand(1);
  SetExamples(group, "  deltapipe job audit text-1");
  auto options = std::make_shared<AuditOptions>();
  CLI::App* verb = group->add_subcommand(
      "audit",
      "Check that every sample was used once: applied + dropped + "
      "pending = consumed");
  verb->add_option("JOB", options->job, "The job's id")->required();
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb, "  deltapipe job audit text-1");
  verb->callback([=] { *chosen = [=] { return Audit(*options); }; });
}

}  // namespace deltapipe
