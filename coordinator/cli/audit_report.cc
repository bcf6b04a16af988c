#include "coordinator/cli/audit_report.h"

#include "absl/strings/str_cat.h"
#include "base/units.h"
#include "coordinator/cli/table.h"

namespace deltapipe {

std::string AuditText(const LedgerAudit& audit) {
  Table table({"SAMPLES", ""}, {Align::kLeft, Align::kRight});
  table.AddRow({"applied", FormatCount(audit.applied)});
  table.AddRow({"dropped", FormatCount(audit.dropped)});
  table.AddRow({"pending", FormatCount(audit.pending)});
  table.AddRow({"consumed", FormatCount(audit.consumed)});
  table.AddRow({"replaced by later generations", FormatCount(audit.replaced)});
  table.AddRow(
      {"looked at one by one", FormatCount(audit.num_samples_checked)});
  return absl::StrCat(
      table.ToString(), "\n", Plural(audit.num_steps, "step"), " of ",
      Plural(audit.samples_per_step, "sample"), ": ",
      audit.is_sound()
          ? "applied + dropped + pending = consumed; no sample twice in an "
            "epoch"
          : Plural(static_cast<int64_t>(audit.findings.size()), "finding"),
      "\n");
}

Json AuditJson(const std::string& job_id, const LedgerAudit& audit) {
  Json object;
  object["schema"] = "deltapipe.cli.Audit";
  object["job_id"] = job_id;
  object["ok"] = audit.is_sound();
  object["steps"] = audit.num_steps;
  object["samples_per_step"] = audit.samples_per_step;
  object["samples_consumed"] = audit.consumed;
  object["samples_applied"] = audit.applied;
  object["samples_dropped"] = audit.dropped;
  object["samples_pending"] = audit.pending;
  object["samples_replaced"] = audit.replaced;
  object["samples_checked"] = audit.num_samples_checked;
  object["findings"] = audit.findings;
  object["notes"] = audit.notes;
  return object;
}

}  // namespace deltapipe
