// What people read of a job's stragglers: for `stragglers`, `top`, `metrics`
// and `describe`. Plain text, pure.
#ifndef DELTAPIPE_COORDINATOR_CLI_STRAGGLER_TEXT_H_
#define DELTAPIPE_COORDINATOR_CLI_STRAGGLER_TEXT_H_

#include <string>

#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// A table of what was found, and a line on what is left out; empty if there is
/// neither.
std::string StragglerSummary(const v1::JobMetrics& metrics);

/// The summary, the score of every worker (a row per stage, a column per
/// replica) and the single fix that saves most. metrics.stragglers() is there.
std::string StragglerReport(const v1::JobMetrics& metrics);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_STRAGGLER_TEXT_H_
