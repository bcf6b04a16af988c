// What is said about a job: the line before it runs, the summary after, and the
// same as JSON.
#ifndef DELTAPIPE_COORDINATOR_CLI_JOB_REPORT_H_
#define DELTAPIPE_COORDINATOR_CLI_JOB_REPORT_H_

#include <string>

#include "coordinator/cli/json_line.h"
#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

/// "text: gpt, 4 layers, width 128, 2 stages x 2 replicas, 1,000 steps;
/// emulated links: 100 Mbit/s, 10 ms each way (network.emulate)".
std::string JobBanner(const v1::JobSpec& spec);
/// "emulated links: 100 Mbit/s, 10 ms each way (network.emulate)", or "".
std::string EmulationText(const v1::JobSpec& spec);

/// The table at the end of a run: bytes raw and on the wire, speed, losses.
std::string SummaryTable(const v1::Job& job);

/// {"event":"result","schema":...,"state":"SUCCEEDED","steps":...}.
Json ResultJson(const v1::Job& job);
/// One object for any event: "step" as StepJson, others with kind, text, state.
Json EventJson(const v1::JobEvent& event);

/// "2026-01-31 12:00:05", local time; "-" for 0.
std::string TimeText(int64_t unix_millis);

/// Where the job's model lies, "host:path"; until it is written, where it was
/// asked for, if anywhere.
std::string ModelFolder(const v1::Job& job);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_JOB_REPORT_H_
