// What `deltapipe job audit` prints of a job's sample ledger.
#ifndef DELTAPIPE_COORDINATOR_CLI_AUDIT_REPORT_H_
#define DELTAPIPE_COORDINATOR_CLI_AUDIT_REPORT_H_

#include <string>

#include "base/sample_ledger.h"
#include "coordinator/cli/json_line.h"

namespace deltapipe {

/// A table of the counts and the line "applied + dropped + pending =
/// consumed". Findings and notes are the caller's to print on stderr.
std::string AuditText(const LedgerAudit& audit);

/// {"schema":"deltapipe.cli.Audit","job_id":...,"ok":...,...}.
Json AuditJson(const std::string& job_id, const LedgerAudit& audit);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_AUDIT_REPORT_H_
